//! Compiles the proto of the sidecar without an installed protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = "../../../sidecar/proto";
    println!("cargo:rerun-if-changed={folder}");
    let files = protox::compile(["wal.proto"], [folder])?;
    tonic_prost_build::configure().build_server(false).compile_fds(files)?;
    Ok(())
}
