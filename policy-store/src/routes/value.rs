//! Values that a request carries as text, turned into the type that the bundle's schema asks for.
//!
//! Owns: [`RawValue`], [`FieldType`] and [`convert`]. Limit: 8 KiB of text per value. Never guesses: `007`,
//! `+5`, `1e3`, `TRUE` and a text with spaces around it are refused, because the service behind the enforcement
//! point may read them differently from us.

use smol_str::SmolStr;

/// Longest text of one context value, in bytes. As long as the longest path, from which values come.
pub const VALUE_BYTES_MAX: usize = 8 * 1024;

/// What the schema says a context field is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FieldType {
    /// Cedar `String`.
    #[default]
    String,
    /// Cedar `Long`: 64-bit signed.
    Long,
    /// Cedar `Bool`.
    Bool,
}

/// A typed value, not yet Cedar's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RawValue {
    /// Text.
    String(SmolStr),
    /// A whole number.
    Long(i64),
    /// True or false.
    Bool(bool),
}

/// Why a text is not a value of the asked type. Does not repeat the text: it may be long or secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// Not a plain decimal number.
    #[error("not a whole number in plain decimal digits")]
    NotLong,
    /// A number, but not one of 64 bits.
    #[error("number outside -2^63..2^63-1")]
    LongOutOfRange,
    /// Neither `true` nor `false`.
    #[error("neither `true` nor `false`")]
    NotBool,
    /// Longer than [`VALUE_BYTES_MAX`].
    #[error("longer than {VALUE_BYTES_MAX} bytes")]
    TooLong,
}

/// Reads `text` as `field_type`.
///
/// # Errors
/// If the text is not in the one accepted form of that type.
pub fn convert(text: &str, field_type: FieldType) -> Result<RawValue, ConvertError> {
    if text.len() > VALUE_BYTES_MAX {
        return Err(ConvertError::TooLong);
    }
    match field_type {
        FieldType::String => Ok(RawValue::String(SmolStr::new(text))),
        FieldType::Long => convert_long(text).map(RawValue::Long),
        FieldType::Bool => match text {
            "true" => Ok(RawValue::Bool(true)),
            "false" => Ok(RawValue::Bool(false)),
            _ => Err(ConvertError::NotBool),
        },
    }
}

/// `-?(0|[1-9][0-9]*)` without `-0`: a leading zero is octal to some readers, a plus is a space to others.
fn convert_long(text: &str) -> Result<i64, ConvertError> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let leading_zero = digits.starts_with('0') && text != "0";
    if !plain || leading_zero {
        return Err(ConvertError::NotLong);
    }
    text.parse().map_err(|_| ConvertError::LongOutOfRange)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_one_spelling_of_a_number_is_read() {
        for good in ["0", "7", "-1", "9223372036854775807", "-9223372036854775808"] {
            assert_eq!(convert(good, FieldType::Long), Ok(RawValue::Long(good.parse().unwrap())));
        }
        for bad in ["", "-", "+5", "007", "-0", "00", " 1", "1 ", "1.0", "1e3", "0x10", "１", "1_000"] {
            assert_eq!(convert(bad, FieldType::Long), Err(ConvertError::NotLong), "{bad:?}");
        }
        for bad in ["9223372036854775808", "-9223372036854775809", "99999999999999999999999"] {
            assert_eq!(convert(bad, FieldType::Long), Err(ConvertError::LongOutOfRange));
        }
    }

    #[test]
    fn only_lower_case_true_and_false_are_bools() {
        assert_eq!(convert("true", FieldType::Bool), Ok(RawValue::Bool(true)));
        assert_eq!(convert("false", FieldType::Bool), Ok(RawValue::Bool(false)));
        for bad in ["", "TRUE", "1", "yes", "true "] {
            assert_eq!(convert(bad, FieldType::Bool), Err(ConvertError::NotBool));
        }
    }

    #[test]
    fn text_beyond_the_limit_is_refused_whatever_the_type() {
        let long = "1".repeat(VALUE_BYTES_MAX + 1);
        for field_type in [FieldType::String, FieldType::Long, FieldType::Bool] {
            assert_eq!(convert(&long, field_type), Err(ConvertError::TooLong));
        }
        assert!(convert(&"x".repeat(VALUE_BYTES_MAX), FieldType::String).is_ok());
    }

    proptest! {
        #[test]
        fn every_long_survives_the_way_through_text(number: i64) {
            prop_assert_eq!(convert(&number.to_string(), FieldType::Long), Ok(RawValue::Long(number)));
        }

        #[test]
        fn a_long_that_is_read_prints_as_it_was_written(text in "[-+0-9 ._x]{0,24}") {
            if let Ok(RawValue::Long(number)) = convert(&text, FieldType::Long) {
                prop_assert_eq!(number.to_string(), text);
            }
        }
    }
}
