//! Generates messages, servers and (for tests and benchmarks) clients from `proto/`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(["rpc.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .build_client(std::env::var_os("CARGO_FEATURE_CLIENT").is_some())
        .build_transport(true)
        .codec_path("crate::codec::SmallBuffers")
        .bytes(".")
        .compile_fds(descriptors)?;
    Ok(())
}
