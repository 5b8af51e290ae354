//! What a failed attempt means: a function of what was asked, of whom, and of what came back.

use std::time::Duration;

use http::StatusCode;
use jiff::Timestamp;

use super::http::{Answer, Failure};
use super::place::{Kind, Place};
use crate::directory::trouble::{Condition, Trouble};

/// Stores refuse signatures of another time; the strictest by five minutes.
const SKEW: Duration = Duration::from_secs(5 * 60);

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// To create an object that is not there.
    Create,
    /// To read an object.
    Read,
    /// To list keys.
    List,
    /// To delete an object.
    Delete,
}

impl Operation {
    const fn denied(self) -> Condition {
        match self {
            Self::Create => Condition::DeniedWrite,
            Self::Read => Condition::DeniedRead,
            Self::List => Condition::DeniedList,
            Self::Delete => Condition::DeniedDelete,
        }
    }

    /// Ends "may not".
    const fn verb(self) -> &'static str {
        match self {
            Self::Create => "create objects",
            Self::Read => "read objects",
            Self::List => "list the bucket",
            Self::Delete => "delete objects",
        }
    }
}

/// Who asked.
pub(super) struct Asker<'a> {
    pub(super) place: &'a Place,
    /// Where the credentials are from.
    pub(super) source: &'a str,
    /// What to do when they are wrong.
    pub(super) remedy: &'a str,
    pub(super) now: Timestamp,
}

/// What a failed attempt means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The key that was to be created is there.
    Taken,
    /// There is no object of that key.
    Absent,
    /// The object ends before what was to be read.
    Beyond,
    /// Anything else.
    Trouble(Trouble),
}

impl Asker<'_> {
    /// Judges a failed attempt.
    pub(super) fn judge(&self, operation: Operation, failure: &Failure) -> Verdict {
        if failure.host() != self.place.host() {
            return Verdict::Trouble(self.of_identity(failure));
        }
        match failure {
            Failure::Answered(answer) => self.answered(operation, answer),
            Failure::Unreachable { host, why } => {
                let network = "check the address, the name service and the network policies on the way";
                self.trouble(Condition::Unreachable, format!("no connection to {host} ({why}): {network}"))
            }
            Failure::NoAnswer { why, .. } => self.trouble(
                Condition::NoAnswer,
                format!("{failure} ({why}); it is tried again", failure = self.place.host()),
            ),
            Failure::PlainHttp { host } => self.trouble(
                Condition::Misconfigured,
                format!("{host} speaks plain HTTP: use https, or set allow_http = true"),
            ),
        }
    }

    /// Judges an answer that says yes, and cannot be understood.
    pub(super) fn unreadable(&self, error: &object_store::Error) -> Verdict {
        self.trouble(Condition::Failing, format!("{error}; it is tried again"))
    }

    fn answered(&self, operation: Operation, answer: &Answer) -> Verdict {
        let code = answer.code.as_deref().unwrap_or_default();
        let status = answer.status;
        match (operation, status.as_u16(), code) {
            // The last is what a signature without the right to overwrite is told.
            (Operation::Create, 412, _)
            | (Operation::Create, 409, "BlobAlreadyExists")
            | (Operation::Create, 403, "UnauthorizedBlobOverwrite") => {
                return Verdict::Taken;
            }
            (Operation::Read | Operation::Delete, 404, "NoSuchKey" | "BlobNotFound") => return Verdict::Absent,
            (Operation::Read, 416, _) => return Verdict::Beyond,
            _ => {}
        }
        let mut trouble = self.refused(operation, answer, code);
        trouble.retry_after = answer.retry_after;
        Verdict::Trouble(trouble)
    }

    fn refused(&self, operation: Operation, answer: &Answer, code: &str) -> Trouble {
        let Self { source, remedy, .. } = self;
        let bucket = &self.place.bucket;
        match (answer.status.as_u16(), code) {
            (404, "NoSuchBucket" | "ContainerNotFound") => self.say(
                Condition::MissingBucket,
                format!("{answer}: create the bucket {bucket:?}, or correct the URL"),
            ),
            (_, "RequestTimeTooSkewed") => self.skewed(answer),
            (_, "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" | "RequestExpired") => self.expired(answer),
            (301 | 307, _) | (_, "AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException") => {
                self.wrong_region(answer)
            }
            // Azure has few codes for all that is wrong with a signature, and tells more in its text.
            (401 | 403, "AuthenticationFailed" | "InvalidAuthenticationInfo") => self.azures_signature(answer),
            (403, "AuthorizationFailure") if answer.message.contains("failed to authenticate") => {
                self.azures_signature(answer)
            }
            (401, _) | (_, "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "InvalidToken" | "InvalidSecurity" | "NotSignedUp") => {
                self.or_skewed(answer, self.wrong_credentials(answer))
            }
            (403, _) | (409, "BlobImmutableDueToPolicy" | "SnapshotsPresent") | (412, "LeaseIdMissing") => self.say(
                operation.denied(),
                format!("{source} may not {}: {answer}: grant {}", operation.verb(), self.grant(operation)),
            ),
            (429, _) | (_, "SlowDown" | "ServerBusy" | "RequestLimitExceeded" | "Throttling" | "ThrottlingException") => {
                self.say(Condition::Throttled, format!("{answer}; it is tried again"))
            }
            (503, _) if answer.retry_after.is_some() => {
                self.say(Condition::Throttled, format!("{answer}; it is tried again"))
            }
            (501, _) if operation == Operation::Create => self.say(
                Condition::NotCreateOnly,
                format!(
                    "the store has no create-only requests ({answer}): use another store, or set unsafe_conditional = true and keep a second writer away"
                ),
            ),
            // 404 without a word of the object; 409: another request of the same key; 400: it did not read all.
            (404 | 408 | 409 | 412 | 500..=599, _) | (400, "RequestTimeout" | "IncompleteBody" | "BadDigest" | "Md5Mismatch") => {
                self.say(Condition::Failing, format!("{answer}; it is tried again"))
            }
            _ => self.say(Condition::Refused, format!("{answer}: {remedy}")),
        }
    }

    fn azures_signature(&self, answer: &Answer) -> Trouble {
        let says = |text: &str| answer.body.contains(text);
        if says("Request date header too old") || says("Request date header is too far") {
            self.skewed(answer)
        } else if ["not valid in the specified time frame", "token is expired", "Lifetime validation failed"]
            .into_iter()
            .any(says)
        {
            self.or_skewed(answer, self.expired(answer))
        } else {
            self.or_skewed(answer, self.wrong_credentials(answer))
        }
    }

    /// What somebody says who is asked for credentials.
    fn of_identity(&self, failure: &Failure) -> Trouble {
        let Self { source, remedy, .. } = self;
        match failure {
            Failure::Answered(answer)
                if answer.status.is_client_error() && answer.status != StatusCode::TOO_MANY_REQUESTS =>
            {
                let expired = matches!(answer.code.as_deref(), Some("ExpiredToken" | "ExpiredTokenException"));
                let condition = if expired { Condition::ExpiredCredentials } else { Condition::WrongCredentials };
                let trouble = self.say(condition, format!("{answer}, with {source}: {remedy}"));
                if expired { trouble } else { self.or_skewed(answer, trouble) }
            }
            _ => {
                let mut trouble = self.say(Condition::NoIdentity, format!("{failure}, asked for {source}: {remedy}"));
                if let Failure::Answered(answer) = failure {
                    trouble.retry_after = answer.retry_after;
                }
                trouble
            }
        }
    }

    fn wrong_credentials(&self, answer: &Answer) -> Trouble {
        let Self { source, remedy, .. } = self;
        self.say(Condition::WrongCredentials, format!("{source} are not accepted ({answer}): {remedy}"))
    }

    fn expired(&self, answer: &Answer) -> Trouble {
        let Self { source, remedy, .. } = self;
        self.say(Condition::ExpiredCredentials, format!("{source} have expired ({answer}): {remedy}"))
    }

    fn wrong_region(&self, answer: &Answer) -> Trouble {
        let used = match &self.place.kind {
            Kind::S3 { region, .. } => region,
            Kind::Adls { .. } | Kind::Gcs => "",
        };
        let remedy = match &answer.region {
            Some(region) => format!("set region = {region:?}"),
            None => "set region to the bucket's, or correct the endpoint".into(),
        };
        self.say(
            Condition::WrongRegion,
            format!("the bucket {:?} is not in the region {used:?} ({answer}): {remedy}", self.place.bucket),
        )
    }

    /// How far this machine's clock is ahead of the server's (negative: behind), in seconds.
    fn ahead(&self, answer: &Answer) -> Option<i64> {
        let theirs = jiff::fmt::rfc2822::parse(answer.date.as_deref()?).ok()?.timestamp();
        Some(self.now.as_second() - theirs.as_second())
    }

    fn skewed(&self, answer: &Answer) -> Trouble {
        let by = match self.ahead(answer) {
            Some(ahead) if ahead < 0 => format!("{} s behind the store's", -ahead),
            Some(ahead) => format!("{ahead} s ahead of the store's"),
            None => "too far from the store's".into(),
        };
        self.say(Condition::ClockSkew, format!("this machine's clock is {by} ({answer}): synchronise it"))
    }

    /// A refused signature is no wonder when the clocks differ.
    fn or_skewed(&self, answer: &Answer, otherwise: Trouble) -> Trouble {
        match self.ahead(answer) {
            Some(ahead) if ahead.unsigned_abs() > SKEW.as_secs() => self.skewed(answer),
            _ => otherwise,
        }
    }

    /// The right that is lacking.
    fn grant(&self, operation: Operation) -> &'static str {
        match (&self.place.kind, operation) {
            (Kind::S3 { .. }, Operation::Create) => "s3:PutObject on the objects",
            (Kind::S3 { .. }, Operation::Read) => "s3:GetObject on the objects, and s3:ListBucket on the bucket",
            (Kind::S3 { .. }, Operation::List) => "s3:ListBucket on the bucket",
            (Kind::S3 { .. }, Operation::Delete) => "s3:DeleteObject on the objects",
            (Kind::Adls { .. }, _) => "the role Storage Blob Data Contributor on the container (a SAS: racwdl)",
            (Kind::Gcs, _) => "the role roles/storage.objectUser on the bucket",
        }
    }

    fn say(&self, condition: Condition, what: String) -> Trouble {
        Trouble::new(condition, format!("{}: {what}", self.place.url))
    }

    fn trouble(&self, condition: Condition, what: String) -> Verdict {
        Verdict::Trouble(self.say(condition, what))
    }
}
