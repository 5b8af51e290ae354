//! What a store refuses: each refusal has a name, and a sentence for people.

use super::*;

/// What a server says, in the words of its manual; and what is made of it.
struct Said {
    url: &'static str,
    status: u16,
    headers: &'static [(&'static str, &'static str)],
    body: &'static str,
    condition: Condition,
    /// Words that the sentence has.
    words: &'static [&'static str],
}

fn said() -> Vec<Said> {
    let long_ago = &[("date", "Tue, 24 Nov 2020 08:00:00 GMT")];
    let of = |url, status, headers, body, condition, words| Said { url, status, headers, body, condition, words };
    vec![
        of(
            S3,
            403,
            &[],
            "<Error><Code>InvalidAccessKeyId</Code><Message>The AWS Access Key Id you provided does not exist in our records.</Message></Error>",
            Condition::WrongCredentials,
            &["s3://b/p", "AKIATEST", "does not exist in our records", "put a valid access_key_id"],
        ),
        of(
            S3,
            403,
            &[],
            "<Error><Code>SignatureDoesNotMatch</Code></Error>",
            Condition::WrongCredentials,
            &["AKIATEST"],
        ),
        of(
            S3,
            403,
            &[],
            "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>",
            Condition::DeniedWrite,
            &["may not create objects", "s3:PutObject", "AKIATEST"],
        ),
        of(
            S3,
            404,
            &[],
            "<Error><Code>NoSuchBucket</Code></Error>",
            Condition::MissingBucket,
            &["create the bucket \"b\""],
        ),
        of(
            S3,
            301,
            &[("x-amz-bucket-region", "eu-central-1")],
            "<Error><Code>PermanentRedirect</Code></Error>",
            Condition::WrongRegion,
            &["\"us-east-1\"", "region = \"eu-central-1\""],
        ),
        of(
            S3,
            400,
            &[],
            "<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-1</Region></Error>",
            Condition::WrongRegion,
            &["region = \"eu-west-1\""],
        ),
        of(
            S3,
            400,
            &[],
            "<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>",
            Condition::ExpiredCredentials,
            &["have expired", "put a valid"],
        ),
        of(
            S3,
            403,
            long_ago,
            "<Error><Code>RequestTimeTooSkewed</Code></Error>",
            Condition::ClockSkew,
            &["s ahead of the store's", "synchronise"],
        ),
        of(
            S3,
            403,
            long_ago,
            "<Error><Code>SignatureDoesNotMatch</Code></Error>",
            Condition::ClockSkew,
            &["synchronise"],
        ),
        of(
            S3,
            501,
            &[],
            "<Error><Code>NotImplemented</Code></Error>",
            Condition::NotCreateOnly,
            &["unsafe_conditional = true"],
        ),
        of(
            S3,
            503,
            &[("retry-after", "7")],
            "<Error><Code>SlowDown</Code></Error>",
            Condition::Throttled,
            &["503 SlowDown", "tried again"],
        ),
        of(S3, 500, &[], "<Error><Code>InternalError</Code></Error>", Condition::Failing, &["500 InternalError"]),
        of(S3, 400, &[], "<Error><Code>RequestTimeout</Code></Error>", Condition::Failing, &[]),
        of(S3, 400, &[], "<Error><Code>EntityTooLarge</Code></Error>", Condition::Refused, &["400 EntityTooLarge"]),
        of(
            ADLS,
            403,
            &[("x-ms-error-code", "AuthenticationFailed")],
            "<Error><Code>AuthenticationFailed</Code><AuthenticationErrorDetail>The MAC signature found in the HTTP request is not the same</AuthenticationErrorDetail></Error>",
            Condition::WrongCredentials,
            &["adls://acc", "put a valid account_key"],
        ),
        of(
            ADLS,
            403,
            &[("x-ms-error-code", "AuthenticationFailed")],
            "<Error><AuthenticationErrorDetail>Signature not valid in the specified time frame: Start</AuthenticationErrorDetail></Error>",
            Condition::ExpiredCredentials,
            &[],
        ),
        of(
            ADLS,
            403,
            &[("x-ms-error-code", "AuthenticationFailed")],
            "<Error><AuthenticationErrorDetail>Request date header too old: 'Tue'</AuthenticationErrorDetail></Error>",
            Condition::ClockSkew,
            &[],
        ),
        of(
            ADLS,
            403,
            &[("x-ms-error-code", "AuthorizationPermissionMismatch")],
            "",
            Condition::DeniedWrite,
            &["Storage Blob Data Contributor"],
        ),
        of(ADLS, 404, &[("x-ms-error-code", "ContainerNotFound")], "", Condition::MissingBucket, &["\"box\""]),
        of(ADLS, 503, &[("x-ms-error-code", "ServerBusy")], "", Condition::Throttled, &[]),
        of(
            GCS,
            401,
            &[],
            "<Error><Code>AuthenticationRequired</Code></Error>",
            Condition::WrongCredentials,
            &["a@b", "service_account.json"],
        ),
        of(
            GCS,
            403,
            &[],
            "<Error><Code>AccessDenied</Code></Error>",
            Condition::DeniedWrite,
            &["roles/storage.objectUser"],
        ),
        of(GCS, 404, &[], "<Error><Code>NoSuchBucket</Code></Error>", Condition::MissingBucket, &[]),
        of(GCS, 429, &[], "<Error><Code>SlowDown</Code></Error>", Condition::Throttled, &[]),
    ]
}

#[tokio::test]
async fn each_refusal_has_a_name_and_a_remedy() {
    for Said { url, status, headers, body, condition, words } in said() {
        let (server, dir) = (Server::start().await, TempDir::new().unwrap());
        let store = store(url, &server.endpoint, &dir, brief());
        server.will_say(status, headers, body);
        let trouble = match create(&store).await.unwrap_err() {
            CreateError::Denied(Denied(trouble)) if condition.stays() => trouble,
            CreateError::Unclear(trouble) if !condition.stays() => trouble,
            other => panic!("{url} {status} {body}: {other:?}"),
        };
        assert_eq!(trouble.condition, condition, "{url} {status} {body}: {trouble}");
        assert!(trouble.sentence.starts_with(url), "{trouble}");
        for word in words {
            assert!(trouble.sentence.contains(word), "{word:?} is not in {trouble}");
        }
        assert!(!trouble.sentence.contains("hush") && !trouble.sentence.contains("aHVzaA"), "a secret: {trouble}");
        assert_eq!(trouble.retry_after, (status == 503 && url == S3).then_some(Duration::from_secs(7)));
        assert_eq!(store.trouble(), Some(trouble));
        assert_eq!(server.asked().len(), 1);
    }
}

#[tokio::test]
async fn each_operation_says_which_right_it_lacks() {
    let (server, dir) = (Server::start().await, TempDir::new().unwrap());
    let store = store(S3, &server.endpoint, &dir, brief());
    let denied = "<Error><Code>AccessDenied</Code></Error>";
    for _ in 0..3 {
        server.will_say(403, &[], denied);
    }
    let Denied(read) = store.read("k", 0..1).await.unwrap_err();
    let Denied(list) = store.list("p/").await.unwrap_err();
    let Denied(delete) = store.delete("k").await.unwrap_err();
    assert_eq!(
        [read.condition, list.condition, delete.condition],
        [Condition::DeniedRead, Condition::DeniedList, Condition::DeniedDelete]
    );
    for (trouble, right) in [(read, "s3:GetObject"), (list, "s3:ListBucket"), (delete, "s3:DeleteObject")] {
        assert!(trouble.sentence.contains(right), "{trouble}");
    }
}
