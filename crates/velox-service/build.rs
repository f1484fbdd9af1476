//! Generates Rust code from the protobuf files; needs no `protoc`.

use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    const FILES: [&str; 3] =
        ["api/request/v1/request.proto", "api/response/v1/response.proto", "api/service/v1/service.proto"];
    // For reflection only: its Rust code is in a library.
    const HEALTH: &str = "grpc/health/v1/health.proto";
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("no OUT_DIR")?);
    let descriptors = out.join("api.binpb");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true).open_files(FILES.into_iter().chain([HEALTH]))?;
    fs::write(&descriptors, compiler.encode_file_descriptor_set())?;
    connectrpc_build::Config::new()
        .descriptor_set(&descriptors)
        .files(&FILES)
        .include_file("_connectrpc.rs")
        .compile()?;
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=build.rs");
    Ok(())
}
