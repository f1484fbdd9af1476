//! The request parsers, for the fuzz targets only; not part of the public API.

use std::sync::LazyLock;

use buffa::Message;
use tokio::runtime;
use velox_api::{BuildSpec, SubmitRequest, Violation};

use crate::{
    catalogue::PluginCatalogue,
    http::{body, builds, download, rpc},
    page,
    proto::api::request::v1::BuildRequest,
    releases::Releases,
};

static CATALOGUE: LazyLock<Option<PluginCatalogue>> = LazyLock::new(|| {
    let runtime = runtime::Builder::new_current_thread().enable_time().build().ok()?;
    Some(runtime.block_on(PluginCatalogue::of(&Releases::built_in(), None)))
});

/// Parses the body of `POST /v1/builds`.
pub fn submit(bytes: &[u8]) -> Option<Result<BuildSpec, Vec<Violation>>> {
    let submit: SubmitRequest = body::parse_json(bytes).ok()?;
    Some(builds::spec(submit).and_then(|(spec, ..)| spec.normalized()))
}

/// Parses a call in JSON.
pub fn call_json(bytes: &[u8]) -> Option<Result<BuildSpec, Vec<Violation>>> {
    let request: BuildRequest = serde_json::from_slice(bytes).ok()?;
    Some(rpc::spec(request).and_then(BuildSpec::normalized))
}

/// Parses a call in protobuf.
pub fn call_protobuf(bytes: &[u8]) -> Option<Result<BuildSpec, Vec<Violation>>> {
    let request = BuildRequest::decode_from_slice(bytes).ok()?;
    Some(rpc::spec(request).and_then(BuildSpec::normalized))
}

/// Parses the query of `GET /v1/download`.
pub fn query(bytes: &[u8]) -> Option<Result<BuildSpec, Vec<Violation>>> {
    let query = std::str::from_utf8(bytes).ok()?;
    Some(download::parse(query).and_then(|query| query.spec.normalized()))
}

/// Parses the form of the web page.
pub fn form(bytes: &[u8]) -> Option<Result<BuildSpec, Vec<Violation>>> {
    Some(page::spec_of_form(bytes, CATALOGUE.as_ref()?))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_form_is_parsed_outside_of_a_runtime() {
        let spec = super::form(b"rr=v2025.1.15&p=github.com/roadrunner-server/logger/v5@v5.2.7").unwrap();
        assert_eq!(spec.map(|spec| spec.roadrunner), Ok("v2025.1.15".to_owned()));
    }
}
