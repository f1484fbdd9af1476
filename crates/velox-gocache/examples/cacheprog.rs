//! A GOCACHEPROG for tests: `cacheprog GOCACHE REMOTE[,REMOTE…] STATS [read-only]`.

use std::{env::args, path::PathBuf, time::Duration};

use velox_gocache::{GoCacheOptions, parse_remote, serve};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = args().skip(1).collect();
    let [gocache, remote, stats, rest @ ..] = arguments.as_slice() else {
        return Err("cacheprog GOCACHE REMOTE[,REMOTE…] STATS [read-only]".into());
    };
    let options = GoCacheOptions {
        gocache: PathBuf::from(gocache),
        remotes: remote.split(',').map(parse_remote).collect::<Result<_, _>>()?,
        read_only: !rest.is_empty(),
        trusted_key: None,
        namespace: "test".to_owned(),
        environment: std::env::vars().collect(),
        timeout: Duration::from_secs(1),
        flush: Duration::from_secs(5),
    };
    let did = serve(options, tokio::io::stdin(), tokio::io::stdout()).await?;
    std::fs::write(stats, serde_json::to_string(&did)?)?;
    Ok(())
}
