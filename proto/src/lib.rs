//! Cardea's wire: the messages and services of package `cardea.v1`, generated from the `.proto` files
//! beside this crate. Those files carry the meaning and the unit of every field.

mod json;

/// Package `cardea.v1`.
pub mod v1 {
    #![expect(
        missing_docs,
        clippy::allow_attributes_without_reason,
        clippy::allow_attributes,
        clippy::doc_markdown,
        reason = "generated; the .proto files are the documentation"
    )]
    tonic::include_proto!("cardea.v1");
}

/// The compiled descriptor set, for server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/cardea_descriptor.bin"));
