//! What can be wrong with a bucket, by name: the sidecar writes the name behind the sentence that says it, as in
//! `… are not accepted: put a valid key there (wrong_credentials)`, and the operator shows it as the bucket's state.

/// Every name as the sidecar has it, and as the reason of a condition.
pub const STATES: [(&str, &str); 18] = [
    ("misconfigured", "Misconfigured"),
    ("no_credentials", "NoCredentials"),
    ("no_identity", "NoIdentity"),
    ("wrong_credentials", "WrongCredentials"),
    ("expired_credentials", "ExpiredCredentials"),
    ("clock_skew", "ClockSkew"),
    ("wrong_region", "WrongRegion"),
    ("missing_bucket", "MissingBucket"),
    ("denied_list", "DeniedList"),
    ("denied_read", "DeniedRead"),
    ("denied_write", "DeniedWrite"),
    ("denied_delete", "DeniedDelete"),
    ("not_create_only", "NotCreateOnly"),
    ("refused", "Refused"),
    ("unreachable", "Unreachable"),
    ("throttled", "Throttled"),
    ("failing", "Failing"),
    ("no_answer", "NoAnswer"),
];

/// A sentence of the sidecar, and the name behind it.
#[must_use]
pub fn split(sentence: &str) -> (&str, Option<&'static str>) {
    let split = sentence.strip_suffix(')').and_then(|rest| rest.rsplit_once(" ("));
    let named = split.and_then(|(before, name)| Some((before, STATES.iter().find(|(known, _)| *known == name)?.0)));
    named.map_or((sentence, None), |(before, name)| (before, Some(name)))
}

/// The reason of a condition, of a state that has a name here.
#[must_use]
pub fn reason(state: &str) -> Option<&'static str> {
    STATES.iter().find(|(known, _)| *known == state).map(|(_, reason)| *reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_behind_a_sentence_and_nothing_else_is_one() {
        assert_eq!(split("no bucket: create it (missing_bucket)"), ("no bucket: create it", Some("missing_bucket")));
        for other in ["", "(missing_bucket", "no such file (os error 2)", "x (missing_bucket) y", "(refused)"] {
            assert_eq!(split(other), (other, None));
        }
    }

    #[test]
    fn a_reason_is_its_name_in_camel_case() {
        for (name, reason) in STATES {
            let words = name.split('_').map(|word| word[..1].to_uppercase() + &word[1..]);
            assert_eq!(words.collect::<String>(), reason);
            assert_eq!(super::reason(name), Some(reason));
        }
        assert_eq!(super::reason("healthy"), None);
    }
}
