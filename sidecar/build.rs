//! Compiles `proto/wal.proto` without an installed protoc, and derives the JSON mapping of api.md from the same
//! descriptors, so that there is one vocabulary: every field gets the serde adapter of its type.

use std::path::PathBuf;
use std::{env, fs};

use prost::Message as _;
use tonic_prost_build::FileDescriptorSet;

const PROTO: &str = "proto/wal.proto";
const PACKAGE: &str = "walstorage.v1";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed={PROTO}");
    let descriptors = protox::compile([PROTO], ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("wal.bin"), descriptors.encode_to_vec())?;

    let mut builder = tonic_prost_build::configure()
        .bytes(".")
        .codec_path("crate::proto::codec::WalCodec")
        .extern_path(".google.protobuf.Timestamp", "::prost_types::Timestamp");
    for (path, attribute) in json_attributes(&descriptors) {
        builder = match attribute {
            Attribute::Message(text) => builder.message_attribute(path, text),
            Attribute::Oneof(text) => builder.enum_attribute(path, text),
            Attribute::Field(text) => builder.field_attribute(path, text),
        };
    }
    builder.compile_fds(descriptors)?;
    Ok(())
}

enum Attribute {
    Message(String),
    Oneof(String),
    Field(String),
}

fn json_attributes(descriptors: &FileDescriptorSet) -> Vec<(String, Attribute)> {
    let mut attributes = Vec::new();
    let file = descriptors.file.iter().find(|f| f.package() == PACKAGE);
    for message in file.into_iter().flat_map(|f| &f.message_type) {
        let path = format!(".{PACKAGE}.{}", message.name());
        let oneofs: Vec<_> = message
            .oneof_decl
            .iter()
            .enumerate()
            .filter(|(i, _)| message.field.iter().any(|f| f.oneof_index == Some(*i as i32) && !f.proto3_optional()))
            .map(|(_, oneof)| oneof.name().to_owned())
            .collect();
        // Where a oneof is all there is, its case is the key: {"entry":{…}}.
        let shape = if oneofs.is_empty() {
            "#[serde(default, deny_unknown_fields, rename_all = \"camelCase\")]"
        } else {
            "#[serde(transparent)]"
        };
        attributes.push((
            path.clone(),
            Attribute::Message(format!("#[derive(::serde::Serialize, ::serde::Deserialize)]\n{shape}")),
        ));
        for oneof in oneofs {
            attributes.push((
                format!("{path}.{oneof}"),
                Attribute::Oneof(
                    "#[derive(::serde::Serialize, ::serde::Deserialize)]\n#[serde(rename_all = \"camelCase\")]".into(),
                ),
            ));
        }
        for field in &message.field {
            if field.oneof_index.is_some() && !field.proto3_optional() {
                continue;
            }
            attributes.push((
                format!("{path}.{}", field.name()),
                Attribute::Field(format!(
                    "#[serde({}alias = \"{}\")]",
                    adapter(field).map(|with| format!("with = \"crate::proto::json::{with}\", ")).unwrap_or_default(),
                    field.name()
                )),
            ));
        }
    }
    attributes
}

/// The module of `proto::json` that maps values of this field's type.
fn adapter(field: &prost_types::FieldDescriptorProto) -> Option<String> {
    use prost_types::field_descriptor_proto::{Label, Type};
    if field.label() == Label::Repeated {
        return Some(if field.r#type() == Type::Message { "objects" } else { "nullable" }.into());
    }
    let type_name = field.type_name();
    match field.r#type() {
        Type::Uint64 | Type::Int64 => Some("number".into()),
        Type::Bytes if field.proto3_optional() => Some("optional_bytes".into()),
        Type::Bytes => Some("bytes".into()),
        Type::Enum => Some(type_name.rsplit('.').next().unwrap_or_default().to_lowercase()),
        Type::Message if type_name == ".google.protobuf.Timestamp" => Some("timestamp".into()),
        Type::Message => None,
        _ => Some("nullable".into()),
    }
}
