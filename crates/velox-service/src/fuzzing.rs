//! The request parsers, for the fuzz targets only; not part of the public API.

use buffa::Message;
use velox_api::{BuildSpec, SubmitRequest, Violation};

use crate::{
    http::{body, builds, rpc},
    proto::api::request::v1::BuildRequest,
};

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
