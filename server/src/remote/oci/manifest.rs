//! The manifest of a bundle in a registry: what is written, and what is demanded of one that is read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::remote::error::tidy;
use crate::remote::location::OciDigest;
use crate::remote::{ARTIFACT_TYPE, LAYER_MEDIA_TYPE};

/// Media type of a manifest.
pub(super) const MEDIA_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// What a registry may answer with. An index is asked for, so that one is refused as what it is.
pub(super) const ACCEPTED: &str =
    "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json";
/// The configuration of an artifact that has none.
pub(super) const EMPTY: &[u8] = b"{}";
const EMPTY_MEDIA_TYPE: &str = "application/vnd.oci.empty.v1+json";
/// [`EMPTY`] in base64.
const EMPTY_DATA: &str = "e30=";

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest {
    schema_version: u8,
    #[serde(default)]
    media_type: String,
    #[serde(default)]
    artifact_type: String,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<String>,
}

/// Where the packed bundle lies.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layer {
    pub(super) digest: OciDigest,
    /// In bytes.
    pub(super) size: u64,
}

impl Manifest {
    /// The manifest of a packed bundle.
    pub(super) fn of(bundle: &[u8], annotations: BTreeMap<String, String>) -> Self {
        let describe = |media_type: &str, content: &[u8]| Descriptor {
            media_type: media_type.to_owned(),
            digest: OciDigest::of(content).to_string(),
            size: content.len() as u64,
            data: None,
        };
        let config = Descriptor { data: Some(EMPTY_DATA.to_owned()), ..describe(EMPTY_MEDIA_TYPE, EMPTY) };
        Self {
            schema_version: 2,
            media_type: MEDIA_TYPE.to_owned(),
            artifact_type: ARTIFACT_TYPE.to_owned(),
            config: Some(config),
            layers: vec![describe(LAYER_MEDIA_TYPE, bundle)],
            annotations,
        }
    }

    /// Reads one, or says why it is none.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(bytes).map_err(|error| format!("its manifest cannot be read: {error}"))
    }

    /// The one layer of a bundle, or what the artifact is instead.
    pub(super) fn bundle(&self) -> Result<Layer, String> {
        if self.schema_version != 2 || self.media_type != MEDIA_TYPE {
            let found =
                if self.media_type.is_empty() { "a manifest without a type" } else { &self.media_type };
            return Err(format!("`{}` instead of `{MEDIA_TYPE}`", tidy(found)));
        }
        if self.artifact_type != ARTIFACT_TYPE {
            let found = if self.artifact_type.is_empty() { "nothing" } else { &self.artifact_type };
            return Err(format!("its artifact type is `{}`, not `{ARTIFACT_TYPE}`", tidy(found)));
        }
        let [layer] = self.layers.as_slice() else {
            return Err(format!("it has {} layers instead of one", self.layers.len()));
        };
        if layer.media_type != LAYER_MEDIA_TYPE {
            return Err(format!("its layer is `{}`, not `{LAYER_MEDIA_TYPE}`", tidy(&layer.media_type)));
        }
        let digest = layer.digest.parse().map_err(|_| {
            format!("its layer has the digest `{}`; only sha256 is understood", tidy(&layer.digest))
        })?;
        if layer.size == 0 {
            return Err("its layer is empty".to_owned());
        }
        Ok(Layer { digest, size: layer.size })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn good() -> Value {
        serde_json::to_value(Manifest::of(b"bundle", BTreeMap::new())).unwrap()
    }

    fn refusal(of: &Value) -> String {
        Manifest::read(of.to_string().as_bytes()).and_then(|manifest| manifest.bundle()).unwrap_err()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let annotations = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        let bytes = serde_json::to_vec(&Manifest::of(b"bundle", annotations)).unwrap();
        let layer = Manifest::read(&bytes).unwrap().bundle().unwrap();
        assert_eq!(layer, Layer { digest: OciDigest::of(b"bundle"), size: 6 });
        let value: Value = serde_json::from_slice(&bytes).unwrap();
        let empty = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
        let config = json!({ "mediaType": EMPTY_MEDIA_TYPE, "digest": empty, "size": 2, "data": "e30=" });
        assert_eq!(value["config"], config);
        assert_eq!(value["annotations"], json!({ "a": "b" }));
    }

    #[test]
    fn everything_else_is_refused_and_named() {
        let cases: [(&str, Value, &str); 8] = [
            ("/schemaVersion", json!(1), "instead of"),
            ("/mediaType", json!("application/vnd.oci.image.index.v1+json"), "index"),
            ("/mediaType", json!(""), "without a type"),
            ("/artifactType", json!("application/vnd.example"), "vnd.example"),
            ("/layers", json!([]), "0 layers"),
            ("/layers/0/mediaType", json!("application/octet-stream"), "octet-stream"),
            ("/layers/0/digest", json!("sha512:12"), "sha256"),
            ("/layers/0/size", json!(0), "empty"),
        ];
        for (place, value, wanted) in cases {
            let mut manifest = good();
            *manifest.pointer_mut(place).unwrap() = value;
            let why = refusal(&manifest);
            assert!(why.contains(wanted), "{place}: {why}");
        }
        let mut two = good();
        let layer = two["layers"][0].clone();
        two["layers"] = json!([layer, layer]);
        assert!(refusal(&two).contains("2 layers"));
        let mut negative = good();
        negative["layers"][0]["size"] = json!(-1);
        assert!(refusal(&negative).contains("cannot be read"));
        assert!(refusal(&json!([])).contains("cannot be read"));
        let mut untyped = good();
        untyped.as_object_mut().unwrap().remove("artifactType");
        assert!(refusal(&untyped).contains("nothing"));
    }
}
