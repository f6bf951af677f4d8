//! Generates the gRPC code and the saved form of state from `proto/` with protox, so that no protoc has to be installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = [
        "proto/flowproxy/v1/batch.proto",
        "proto/flowproxy/v1/forward.proto",
        "proto/flowproxy/state/v1/state.proto",
    ];
    let descriptors = protox::compile(files, ["proto"])?;
    // What comes every 10 s should not make every message as large.
    tonic_prost_build::configure()
        .bytes(".")
        .boxed(".flowproxy.v1.Heartbeat.counters")
        .compile_fds(descriptors)?;
    Ok(())
}
