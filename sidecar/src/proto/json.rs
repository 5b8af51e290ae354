//! The JSON mapping of api.md, one module per kind of field; `build.rs` puts them on the generated fields.
//!
//! Printed: 64-bit numbers as strings, timestamps as RFC 3339 UTC with six digits, bytes as padded base64, enums by name,
//! an absent key as `null`. Accepted besides: JSON numbers below 2^53, URL-safe and unpadded base64, enums by number,
//! snake_case, and `null` for the default as in proto3 JSON. Unknown fields are refused by the derive.

use std::fmt;
use std::marker::PhantomData;

use ::bytes::Bytes;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use base64::engine::{DecodePaddingMode, Engine};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serializer};

/// JSON numbers are exact below this.
const EXACT: u64 = 1 << 53;

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const LENIENT_STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const LENIENT_URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// Decodes base64 in either alphabet, padded or not.
///
/// # Errors
/// When the text is not base64.
pub fn decode_base64(text: &str) -> Result<Vec<u8>, base64::DecodeError> {
    let engine: &GeneralPurpose =
        if text.bytes().any(|b| b == b'-' || b == b'_') { &LENIENT_URL_SAFE } else { &LENIENT_STANDARD };
    Engine::decode(engine, text)
}

/// Any field for which serde's own form is right; `null` is the default.
pub mod nullable {
    use super::{Deserialize, Deserializer, Serializer};

    pub(in crate::proto) fn serialize<T: serde::Serialize, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
        value.serialize(to)
    }

    pub(in crate::proto) fn deserialize<'de, T, D>(from: D) -> Result<T, D::Error>
    where
        T: Default + Deserialize<'de>,
        D: Deserializer<'de>,
    {
        Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
    }
}

/// A message, given as a JSON object: serde's own structs would take an array too.
#[derive(Clone, Debug, Default)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(de::value::MapAccessDeserializer::new(map)).map(Object)
            }
        }

        from.deserialize_map(Fields(PhantomData))
    }
}

/// Lists of messages; `null` is the empty one.
pub mod objects {
    use super::{Deserialize, Deserializer, Object, Serializer};

    pub(in crate::proto) fn serialize<T: serde::Serialize, S: Serializer>(
        value: &[T],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_seq(value)
    }

    pub(in crate::proto) fn deserialize<'de, T, D>(from: D) -> Result<Vec<T>, D::Error>
    where
        T: Deserialize<'de>,
        D: Deserializer<'de>,
    {
        let objects = Option::<Vec<Object<T>>>::deserialize(from)?.unwrap_or_default();
        Ok(objects.into_iter().map(|object| object.0).collect())
    }
}

/// 64-bit numbers: strings out; strings, and numbers below 2^53, in.
pub mod number {
    use super::{Deserializer, EXACT, Serializer, Visitor, de, fmt};

    pub(in crate::proto) fn serialize<S: Serializer>(value: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    /// Decimal digits, nothing else.
    #[must_use]
    pub fn parse(text: &str) -> Option<u64> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if digits { text.parse().ok() } else { None }
    }

    struct Number;

    impl Visitor<'_> for Number {
        type Value = u64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a whole number from 0, as a string or, below 2^53, as a JSON number")
        }

        fn visit_u64<E: de::Error>(self, value: u64) -> Result<u64, E> {
            if value < EXACT { Ok(value) } else { Err(E::invalid_value(de::Unexpected::Unsigned(value), &self)) }
        }

        fn visit_f64<E: de::Error>(self, value: f64) -> Result<u64, E> {
            // proto3 JSON accepts 1.0 and 1e3 where a whole number is meant.
            if value.fract() == 0.0 && (0.0..EXACT as f64).contains(&value) {
                return Ok(value as u64);
            }
            Err(E::invalid_value(de::Unexpected::Float(value), &self))
        }

        fn visit_str<E: de::Error>(self, value: &str) -> Result<u64, E> {
            parse(value).ok_or_else(|| E::invalid_value(de::Unexpected::Str(value), &self))
        }

        fn visit_unit<E: de::Error>(self) -> Result<u64, E> {
            Ok(0)
        }
    }

    pub(in crate::proto) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        from.deserialize_any(Number)
    }
}

struct Base64;

impl Visitor<'_> for Base64 {
    type Value = Option<Bytes>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes as a base64 string")
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Option<Bytes>, E> {
        decode_base64(value).map(|bytes| Some(bytes.into())).map_err(|e| E::custom(format_args!("not base64: {e}")))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Option<Bytes>, E> {
        Ok(None)
    }
}

/// Bytes as base64.
pub mod bytes {
    use super::{Base64, Bytes, Deserializer, STANDARD, Serializer};
    use base64::Engine as _;

    pub(in crate::proto) fn serialize<S: Serializer>(value: &Bytes, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(value))
    }

    pub(in crate::proto) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
        Ok(from.deserialize_any(Base64)?.unwrap_or_default())
    }
}

/// Bytes as base64, absent as `null`.
pub mod optional_bytes {
    use super::{Base64, Bytes, Deserializer, STANDARD, Serializer};
    use base64::Engine as _;

    pub(in crate::proto) fn serialize<S: Serializer>(value: &Option<Bytes>, to: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(bytes) => to.serialize_some(&STANDARD.encode(bytes)),
            None => to.serialize_none(),
        }
    }

    pub(in crate::proto) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Bytes>, D::Error> {
        from.deserialize_any(Base64)
    }
}

/// Timestamps as RFC 3339 in UTC with six digits.
pub mod timestamp {
    use super::{Deserialize, Deserializer, Serializer, de};
    use prost_types::Timestamp;

    pub(in crate::proto) fn serialize<S: Serializer>(value: &Option<Timestamp>, to: S) -> Result<S::Ok, S::Error> {
        match value.as_ref().and_then(super::format_timestamp) {
            Some(text) => to.serialize_some(&text),
            None => to.serialize_none(),
        }
    }

    pub(in crate::proto) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Timestamp>, D::Error> {
        let Some(text) = Option::<String>::deserialize(from)? else { return Ok(None) };
        let at: jiff::Timestamp = text.parse().map_err(de::Error::custom)?;
        Ok(Some(Timestamp { seconds: at.as_second(), nanos: at.subsec_nanosecond() }))
    }
}

/// RFC 3339 in UTC with six digits; `None` outside of the years that it can express.
#[must_use]
pub fn format_timestamp(at: &prost_types::Timestamp) -> Option<String> {
    let at = jiff::Timestamp::new(at.seconds, at.nanos).ok()?;
    Some(format!("{at:.6}"))
}

struct EnumValue<F>(F, &'static str);

impl<F: Fn(&str) -> Option<i32>> Visitor<'_> for EnumValue<F> {
    type Value = i32;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.1)
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<i32, E> {
        (self.0)(value).ok_or_else(|| E::invalid_value(de::Unexpected::Str(value), &self))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<i32, E> {
        i32::try_from(value).map_err(|_| E::invalid_value(de::Unexpected::Unsigned(value), &self))
    }

    fn visit_unit<E: de::Error>(self) -> Result<i32, E> {
        Ok(0)
    }
}

macro_rules! enum_by_name {
    ($module:ident, $type:ident, $expecting:literal) => {
        #[doc = concat!("Enum `", stringify!($type), "` by name.")]
        pub mod $module {
            use super::{Deserializer, EnumValue, Serializer};
            use crate::proto::$type;

            pub(in crate::proto) fn serialize<S: Serializer>(value: &i32, to: S) -> Result<S::Ok, S::Error> {
                match $type::try_from(*value) {
                    Ok(known) => to.serialize_str(known.as_str_name()),
                    Err(_) => to.serialize_i32(*value),
                }
            }

            pub(in crate::proto) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<i32, D::Error> {
                from.deserialize_any(EnumValue(|name: &str| $type::from_str_name(name).map(|v| v as i32), $expecting))
            }
        }
    };
}

enum_by_name!(ack, Ack, "DURABLE or BUFFERED");
enum_by_name!(reason, Reason, "DAMAGE or DIRECTORY_FORGOTTEN");

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
