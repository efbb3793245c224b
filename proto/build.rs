//! Compiles `cardea/v1/*.proto` without a system `protoc`, and keeps the descriptors for server reflection.
//!
//! Audit records, and all that they are made of, also have a form in JSON: names as in the `.proto` files, defaults left out,
//! times as RFC 3339, enums in lower case without their prefix.

use std::collections::BTreeSet;
use std::{env, error::Error, fs, path::PathBuf};

use protox::prost::Message as _;
use protox::prost_reflect::{DescriptorPool, FieldDescriptor, Kind, MessageDescriptor};
use tonic_prost_build::Builder;

const RECORD: &str = "cardea.v1.Record";
const JSON: &str = "#[derive(serde::Serialize, serde::Deserialize)]";

fn main() -> Result<(), Box<dyn Error>> {
    let files = ["common", "decision", "session", "signal", "audit", "admin", "task", "review"]
        .map(|name| format!("cardea/v1/{name}.proto"));
    let descriptors = protox::compile(&files, ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?).join("cardea_descriptor.bin");
    fs::write(out, descriptors.encode_to_vec())?;
    // Few decisions have them, and they would be most of each.
    let boxed = ["deviation", "observed", "replay"].map(|field| format!(".cardea.v1.DecisionRecord.{field}"));
    let mut builder = tonic_prost_build::configure().btree_map(".");
    for field in &boxed {
        builder = builder.boxed(field);
    }
    let pool = DescriptorPool::from_file_descriptor_set(descriptors.clone())?;
    let record = pool.get_message_by_name(RECORD).ok_or("no message Record")?;
    let mut messages = BTreeSet::new();
    reach(&record, &mut messages);
    for name in &messages {
        let message = pool.get_message_by_name(name).ok_or("a message that is gone")?;
        builder = with_json(builder, &message);
    }
    builder.compile_fds(descriptors)?;
    println!("cargo:rerun-if-changed=cardea");
    Ok(())
}

/// The message and all messages of this package that it is made of.
fn reach(message: &MessageDescriptor, found: &mut BTreeSet<String>) {
    if !message.full_name().starts_with("cardea.") || !found.insert(message.full_name().to_owned()) {
        return;
    }
    for field in message.fields() {
        if let Kind::Message(inner) = field.kind() {
            reach(&inner, found);
        }
    }
}

/// Gives a message a form in JSON.
fn with_json(mut builder: Builder, message: &MessageDescriptor) -> Builder {
    let path = format!(".{}", message.full_name());
    // A value is what it holds, whatever messages protobuf needs around it.
    let is_plain = ["Value", "ValueSet", "ValueRecord"].contains(&message.name());
    // `src/json.rs` writes it, since its entry stands among its fields.
    let is_written = message.full_name() == RECORD;
    if !is_written {
        let container = if is_plain { "#[serde(transparent)]" } else { "#[serde(default)]" };
        builder = builder.message_attribute(&path, format!("{JSON} {container}"));
    }
    for oneof in message.oneofs() {
        let rename = format!("{JSON} #[serde(rename_all = \"snake_case\")]");
        builder = builder.enum_attribute(format!("{path}.{}", oneof.name()), rename);
    }
    for field in message.fields() {
        let in_oneof = field.containing_oneof().is_some();
        let skip = (!in_oneof && !is_plain && !is_written)
            .then(|| "skip_serializing_if = \"crate::json::is_default\"".to_owned());
        let attributes: Vec<String> = skip.into_iter().chain(with(&field, in_oneof)).collect();
        let is_own = in_oneof || !is_written;
        if is_own && !attributes.is_empty() {
            let attributes = format!("#[serde({})]", attributes.join(", "));
            let oneof =
                field.containing_oneof().map(|oneof| format!(".{}", oneof.name())).unwrap_or_default();
            builder = builder.field_attribute(format!("{path}{oneof}.{}", field.name()), attributes);
        }
    }
    builder
}

/// How a field is written that serde cannot write by itself.
fn with(field: &FieldDescriptor, in_oneof: bool) -> Option<String> {
    let module = match field.kind() {
        Kind::Enum(one) => match one.full_name() {
            "cardea.v1.Decision" => "decision",
            "cardea.v1.ReasonCode" => "reason_code",
            "cardea.v1.ShadowEffect" => "shadow_effect",
            "cardea.v1.HoldCause.Kind" => "hold_cause",
            "cardea.v1.GapRecord.Cause" => "gap_cause",
            other => panic!("no form in JSON for the enum {other} of a record; give it one in src/json.rs"),
        },
        Kind::Message(inner) => match (inner.full_name(), in_oneof) {
            ("google.protobuf.Timestamp", true) => "time",
            ("google.protobuf.Timestamp", false) => "optional_time",
            ("google.protobuf.Duration", true) => {
                return Some("rename = \"duration_ms\", with = \"crate::json::duration\"".to_owned());
            }
            _ => return None,
        },
        _ => return None,
    };
    Some(format!("with = \"crate::json::{module}\""))
}
