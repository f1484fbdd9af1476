//! Generates Rust code from the descriptors of the protobuf files.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    // Rust code for grpc/health/v1/health.proto, which the descriptors include for reflection, is in a library.
    connectrpc_build::Config::new()
        .descriptor_set("proto/api.binpb")
        .files(&[
            "api/request/v1/request.proto",
            "api/response/v1/response.proto",
            "api/service/v1/service.proto",
        ])
        .include_file("_connectrpc.rs")
        .compile()?;
    println!("cargo:rerun-if-changed=build.rs");
    Ok(())
}
