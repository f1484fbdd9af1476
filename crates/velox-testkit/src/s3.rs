use std::{collections::BTreeMap, fs, io, net::TcpListener};

use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use s3s::{auth::SimpleAuth, service::S3ServiceBuilder};
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::runtime::Runtime;

const KEY: &str = "testkit";
const SECRET: &str = "testkit-secret";

/// An S3 server on localhost, over a directory of its own. It checks signatures.
#[derive(Debug)]
pub struct S3Server {
    directory: TempDir,
    port: u16,
    /// `None` once it is dropped: a runtime mustn't wait for its tasks within another.
    runtime: Option<Runtime>,
}

impl S3Server {
    /// Starts one, with the bucket `builds`.
    pub fn start() -> io::Result<Self> {
        let directory = tempfile::Builder::new().prefix("testkit-s3-").tempdir()?;
        fs::create_dir(directory.path().join("builds"))?;
        let files =
            FileSystem::new(directory.path()).map_err(|error| io::Error::other(format!("{error:?}")))?;
        let mut service = S3ServiceBuilder::new(files);
        service.set_auth(SimpleAuth::from_single(KEY, SECRET));
        let service = service.build();
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.spawn(async move {
            let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
            while let Ok((stream, _)) = listener.accept().await {
                let service = service.clone();
                tokio::spawn(async move {
                    let server = Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Ok(Self { directory, port, runtime: Some(runtime) })
    }

    /// The URL of a bucket and what is in it: `s3://PATH`.
    pub fn url(&self, path: &str) -> String {
        format!("s3://{path}")
    }

    /// The variables that lead there, and let in.
    pub fn environment(&self) -> BTreeMap<String, String> {
        [
            ("AWS_ENDPOINT", format!("http://127.0.0.1:{}", self.port)),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET.to_owned()),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
    }

    /// Where its buckets are: a directory each.
    pub fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
