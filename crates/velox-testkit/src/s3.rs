use std::{collections::BTreeMap, fs, io};

use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use s3s::{auth::SimpleAuth, service::S3ServiceBuilder};
use s3s_fs::FileSystem;
use tempfile::TempDir;

use crate::localhost::{self, LocalServer};

const KEY: &str = "testkit";
const SECRET: &str = "testkit-secret";

/// An S3 server on localhost with its own directory. It verifies signatures.
#[derive(Debug)]
pub struct S3Server {
    directory: TempDir,
    server: LocalServer,
}

impl S3Server {
    /// Starts a server with the bucket `builds`.
    pub fn start() -> io::Result<Self> {
        let directory = tempfile::Builder::new().prefix("testkit-s3-").tempdir()?;
        fs::create_dir(directory.path().join("builds"))?;
        let files =
            FileSystem::new(directory.path()).map_err(|error| io::Error::other(format!("{error:?}")))?;
        let mut service = S3ServiceBuilder::new(files);
        service.set_auth(SimpleAuth::from_single(KEY, SECRET));
        let service = service.build();
        let server = localhost::bind().serve(move |stream| {
            let service = service.clone();
            async move {
                let http = Builder::new(TokioExecutor::new());
                let _ = http.serve_connection(TokioIo::new(stream), service).await;
            }
        });
        Ok(Self { directory, server })
    }

    /// The URL of a bucket or of an object in it: `s3://PATH`.
    pub fn url(&self, path: &str) -> String {
        format!("s3://{path}")
    }

    /// Environment variables with the endpoint and the credentials.
    pub fn environment(&self) -> BTreeMap<String, String> {
        [
            ("AWS_ENDPOINT", format!("http://{}", self.server.address)),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET.to_owned()),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
    }

    /// The directory that contains a directory per bucket.
    pub fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }
}
