//! Generates the stubs and the descriptor set (for reflection) from `nave/v1/*.proto`.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

const FILES: [&str; 3] = ["nave/v1/types.proto", "nave/v1/dataplane.proto", "nave/v1/management.proto"];

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=nave/v1");
    println!("cargo::rerun-if-env-changed=PROTOC");
    let protoc = std::env::var("PROTOC").unwrap_or_else(|_| "protoc".to_owned());
    if Command::new(&protoc).arg("--version").output().is_err() {
        println!("cargo::error=`{protoc}` does not run; on Debian: apt-get install protobuf-compiler");
        return ExitCode::FAILURE;
    }
    let Some(out) = std::env::var_os("OUT_DIR") else {
        println!("cargo::error=OUT_DIR is not set: this is cargo's build script");
        return ExitCode::FAILURE;
    };
    let compiled = tonic_prost_build::configure()
        // Their keys stay out of logs: `convert::sa` says how they are shown.
        .skip_debug(["nave.v1.InboundSa", "nave.v1.OutboundSa", "nave.v1.ApplyRequest"])
        .file_descriptor_set_path(PathBuf::from(out).join("nave.bin"))
        .compile_protos(&FILES, &["."]);
    match compiled {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("cargo::error=nave/v1: {error}");
            ExitCode::FAILURE
        }
    }
}
