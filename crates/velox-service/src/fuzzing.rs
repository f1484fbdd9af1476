//! What reads requests, for the fuzz targets alone: no part of the library's promises.

use buffa::Message;

use crate::{
    Spec, Violation,
    api::Submit,
    http::{body, builds, rpc},
    proto::api::request::v1::BuildRequest,
};

/// The body of `POST /v1/builds`.
pub fn submit(bytes: &[u8]) -> Option<Result<Spec, Vec<Violation>>> {
    let submit: Submit = body::parse(bytes).ok()?;
    Some(builds::spec(submit).and_then(|(spec, _)| spec.checked()))
}

/// A call's JSON.
pub fn call_json(bytes: &[u8]) -> Option<Result<Spec, Vec<Violation>>> {
    let request: BuildRequest = serde_json::from_slice(bytes).ok()?;
    Some(rpc::spec(request).and_then(Spec::checked))
}

/// A call's protobuf.
pub fn call_protobuf(bytes: &[u8]) -> Option<Result<Spec, Vec<Violation>>> {
    let request = BuildRequest::decode_from_slice(bytes).ok()?;
    Some(rpc::spec(request).and_then(Spec::checked))
}
