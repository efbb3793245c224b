//! DSSE, the Dead Simple Signing Envelope, protocol 1.0: who signed which bytes.
//!
//! <https://github.com/secure-systems-lab/dsse/blob/v1.0.2/protocol.md>. What is verified is the pre-authentication
//! encoding of type and payload, and the payload that is handed out is the one that was verified. A key id is a hint:
//! it is never what makes a signature count. Limits: [`ENVELOPE_BYTES_MAX`], [`SIGNATURES_MAX`].

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::{Deserialize, Serialize};

use crate::keys::PublicKey;

/// Largest envelope, in bytes: a statement of 4 KiB with the most signatures has about 9 KiB.
pub const ENVELOPE_BYTES_MAX: usize = 64 * 1024;
/// Most signatures of an envelope.
pub const SIGNATURES_MAX: usize = 16;

/// A signed payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// What the payload is.
    pub payload_type: String,
    /// The bytes that were signed.
    pub payload: Vec<u8>,
    /// Who signed them.
    pub signatures: Vec<Signature>,
}

/// One signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Says which key might verify it; empty if the envelope does not say.
    pub key_id: String,
    /// The signature.
    pub bytes: Vec<u8>,
}

/// Why bytes are no envelope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Beyond [`ENVELOPE_BYTES_MAX`].
    #[error("the envelope has {0} bytes; at most {ENVELOPE_BYTES_MAX} are read")]
    TooLarge(usize),
    /// Not JSON, or not in the form of an envelope.
    #[error("the envelope is not DSSE: {0}")]
    Malformed(String),
    /// A field that must be base64 is not.
    #[error("the envelope's `{0}` is not base64")]
    NotBase64(&'static str),
    /// No signature, or more than [`SIGNATURES_MAX`].
    #[error("the envelope has {0} signatures; 1 to {SIGNATURES_MAX} are read")]
    SignatureCount(usize),
    /// Not in the one form that [`Envelope::to_json`] writes.
    #[error("the envelope is not in canonical form: sign the bundle with `cardea bundle sign`")]
    NotCanonical,
}

/// The form on the wire. Unknown fields are ignored, as the protocol asks.
#[derive(Serialize, Deserialize)]
struct Wire {
    payload: String,
    #[serde(rename = "payloadType")]
    payload_type: String,
    signatures: Vec<WireSignature>,
}

#[derive(Serialize, Deserialize)]
struct WireSignature {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    keyid: String,
    sig: String,
}

impl Envelope {
    /// Reads an envelope from JSON; base64 in either alphabet, padded or not.
    ///
    /// # Errors
    /// When it has another form or is beyond a limit.
    pub fn parse(json: &[u8]) -> Result<Self, EnvelopeError> {
        if json.len() > ENVELOPE_BYTES_MAX {
            return Err(EnvelopeError::TooLarge(json.len()));
        }
        let wire: Wire =
            serde_json::from_slice(json).map_err(|error| EnvelopeError::Malformed(error.to_string()))?;
        if wire.signatures.is_empty() || wire.signatures.len() > SIGNATURES_MAX {
            return Err(EnvelopeError::SignatureCount(wire.signatures.len()));
        }
        let payload = decode(&wire.payload).ok_or(EnvelopeError::NotBase64("payload"))?;
        let signatures = wire.signatures.into_iter().map(|signature| {
            let bytes = decode(&signature.sig).ok_or(EnvelopeError::NotBase64("sig"))?;
            Ok(Signature { key_id: signature.keyid, bytes })
        });
        Ok(Self {
            payload_type: wire.payload_type,
            payload,
            signatures: signatures.collect::<Result<_, _>>()?,
        })
    }

    /// As [`Envelope::parse`], and only in the form that [`Envelope::to_json`] writes, so that no byte of it can be
    /// changed without being noticed.
    ///
    /// # Errors
    /// As there, and for any other form.
    pub fn parse_canonical(json: &[u8]) -> Result<Self, EnvelopeError> {
        let envelope = Self::parse(json)?;
        if envelope.to_json() == json { Ok(envelope) } else { Err(EnvelopeError::NotCanonical) }
    }

    /// The envelope as JSON, in canonical form.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let wire = Wire {
            payload: STANDARD.encode(&self.payload),
            payload_type: self.payload_type.clone(),
            signatures: self
                .signatures
                .iter()
                .map(|one| WireSignature { keyid: one.key_id.clone(), sig: STANDARD.encode(&one.bytes) })
                .collect(),
        };
        serde_json::to_vec(&wire).unwrap_or_default()
    }

    /// What a signature is made over.
    #[must_use]
    pub fn signed_bytes(&self) -> Vec<u8> {
        pae(&self.payload_type, &self.payload)
    }

    /// Which of `keys` signed, as places in `keys`, each once however often it signed.
    #[must_use]
    pub fn signers(&self, keys: &[PublicKey]) -> Vec<usize> {
        let message = self.signed_bytes();
        let signed = |key: &PublicKey| self.signatures.iter().any(|one| key.verifies(&message, &one.bytes));
        keys.iter().enumerate().filter(|(_, key)| signed(key)).map(|(at, _)| at).collect()
    }
}

/// The pre-authentication encoding: `"DSSEv1" SP len(type) SP type SP len(body) SP body`.
#[must_use]
pub fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

fn decode(text: &str) -> Option<Vec<u8>> {
    const EITHER: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    const STANDARD_ALPHABET: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, EITHER);
    const URL_ALPHABET: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, EITHER);
    STANDARD_ALPHABET.decode(text).or_else(|_| URL_ALPHABET.decode(text)).ok()
}

#[cfg(test)]
mod tests;
