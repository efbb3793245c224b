//! Compiles `cardea/v1/*.proto` without a system `protoc`, and keeps the descriptors for server reflection.

use std::{env, error::Error, fs, path::PathBuf};

use protox::prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    let files = ["common", "decision", "session", "signal", "audit", "admin", "task", "review"]
        .map(|name| format!("cardea/v1/{name}.proto"));
    let descriptors = protox::compile(&files, ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?).join("cardea_descriptor.bin");
    fs::write(out, descriptors.encode_to_vec())?;
    // Few decisions have them, and they would be most of each.
    let boxed = ["deviation", "observed", "replay"].map(|field| format!(".cardea.v1.DecisionRecord.{field}"));
    let builder = tonic_prost_build::configure().btree_map(".");
    boxed.iter().fold(builder, |builder, field| builder.boxed(field)).compile_fds(descriptors)?;
    println!("cargo:rerun-if-changed=cardea");
    Ok(())
}
