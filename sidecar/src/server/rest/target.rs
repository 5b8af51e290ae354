//! What a request's target says: path segments and query parameters, percent-decoded strictly. Pure.

use percent_encoding::percent_decode_str;

use crate::error::{ApiError, Reason};
use crate::proto::json::number;

/// Decodes `%XX`; anything else after a `%` is an error, and so is what is not UTF-8 afterwards.
pub(crate) fn decode(text: &str) -> Result<String, String> {
    let bytes = text.as_bytes();
    for (at, _) in bytes.iter().enumerate().filter(|(_, b)| **b == b'%') {
        let digit = |n: usize| bytes.get(at + n).is_some_and(u8::is_ascii_hexdigit);
        if !digit(1) || !digit(2) {
            return Err(format!(
                "{text:?} has a % without two hexadecimal digits after it: write %25 for a percent sign"
            ));
        }
    }
    match percent_decode_str(text).decode_utf8() {
        Ok(decoded) => Ok(decoded.into_owned()),
        Err(_) => Err(format!("{text:?} is not UTF-8 when decoded")),
    }
}

/// The parameters of a query, each known and given once.
#[derive(Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Parses a query; `known` are the names that it may have, in camelCase (snake_case is accepted too).
    pub(crate) fn parse(query: Option<&str>, known: &[&str]) -> Result<Self, ApiError> {
        let wrong = |message| ApiError::new(Reason::InvalidRequest, message);
        let mut parsed: Vec<(String, String)> = Vec::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decode = |text: &str| decode(&text.replace('+', "%20")).map_err(wrong);
            let (name, value) = (decode(name)?, decode(value)?);
            let Some(canonical) = known.iter().find(|k| **k == name || snake_case(k) == name) else {
                let known = if known.is_empty() { "none".into() } else { known.join(", ") };
                return Err(wrong(format!("unknown query parameter {name:?}: known here: {known}")));
            };
            if parsed.iter().any(|(earlier, _)| earlier == canonical) {
                return Err(wrong(format!("query parameter {canonical} is given twice")));
            }
            parsed.push(((*canonical).to_owned(), value));
        }
        Ok(Self(parsed))
    }

    /// A parameter as text.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// A parameter as a whole number; 0 when it is not given.
    pub(crate) fn number(&self, name: &str) -> Result<u64, ApiError> {
        let Some(text) = self.text(name) else { return Ok(0) };
        number::parse(text).ok_or_else(|| {
            ApiError::new(Reason::InvalidRequest, format!("{name}={text} is not a whole number from 0 to {}", u64::MAX))
        })
    }

    /// A parameter as true or false; false when it is not given.
    pub(crate) fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.text(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => {
                Err(ApiError::new(Reason::InvalidRequest, format!("{name}={other} is neither true nor false")))
            }
        }
    }
}

fn snake_case(camel: &str) -> String {
    let mut snake = String::with_capacity(camel.len() + 4);
    for c in camel.chars() {
        if c.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_decoded_strictly() {
        let table = [
            ("plain", Ok("plain")),
            ("a%2Fb", Ok("a/b")),
            ("a%2fb", Ok("a/b")),
            ("%00", Ok("\0")),
            ("%F0%9F%A6%80", Ok("🦀")),
            ("a+b", Ok("a+b")),
            ("..", Ok("..")),
            ("%25", Ok("%")),
            ("100%", Err("without two hexadecimal digits")),
            ("%2", Err("without two hexadecimal digits")),
            ("%zz", Err("without two hexadecimal digits")),
            ("%é", Err("without two hexadecimal digits")),
            ("%FF", Err("not UTF-8")),
        ];
        for (text, expected) in table {
            match (decode(text), expected) {
                (Ok(decoded), Ok(expected)) => assert_eq!(decoded, expected),
                (Err(message), Err(expected)) => assert!(message.contains(expected), "{message}"),
                (decoded, _) => panic!("{text:?} became {decoded:?}"),
            }
        }
    }

    #[test]
    fn a_query_has_known_parameters_once() {
        let known = ["from", "producerId"];
        let query = Query::parse(Some("from=18446744073709551615&producer_id=a+b%26&"), &known).unwrap();
        assert_eq!(query.number("from").unwrap(), u64::MAX);
        assert_eq!(query.text("producerId"), Some("a b&"));
        let table = [
            ("form=1", "unknown query parameter \"form\": known here: from, producerId"),
            ("from=1&from=1", "given twice"),
            ("producerId=a&producer_id=a", "given twice"),
            ("from=%", "without two hexadecimal digits"),
        ];
        for (query, message) in table {
            let error = Query::parse(Some(query), &known).unwrap_err();
            assert_eq!(error.reason, Reason::InvalidRequest);
            assert!(error.message.contains(message), "{}", error.message);
        }
        for wrong in ["", "-1", "+1", "1.0", "0x1", "18446744073709551616", "1 "] {
            let query = Query(vec![("from".into(), wrong.into())]);
            assert!(query.number("from").is_err(), "{wrong:?}");
            assert!(query.flag("from").is_err(), "{wrong:?}");
        }
    }
}
