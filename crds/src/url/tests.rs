//! Every rule of normalisation, and what is refused.

use proptest::prelude::*;

use super::*;

fn canonical(text: &str) -> String {
    WalUrl::parse(text).unwrap_or_else(|error| panic!("{text}: {error}")).to_string()
}

fn refused(text: &str) -> String {
    let error = WalUrl::parse(text).map(|url| url.to_string()).unwrap_err();
    format!("{error}; {}", error.allowed())
}

#[test]
fn the_forms_of_the_documentation_are_canonical_as_they_are() {
    for url in [
        "file:///workspace/data/wal",
        "s3://bucket1/wal",
        "s3://bucket1",
        "gcs://bucket/prefix",
        "adls://account.dfs.core.windows.net/container/wal",
        "adls://account.dfs.core.windows.net/container",
    ] {
        assert_eq!(canonical(url), url);
    }
}

#[test]
fn two_spellings_of_one_place_are_equal() {
    for (written, url) in [
        ("FILE:///wal", "file:///wal"),
        ("file:////wal//nvme1///", "file:///wal/nvme1"),
        ("file:///w%61l/%7Euser", "file:///wal/~user"),
        ("file:///a%c3%a4", "file:///a%C3%A4"),
        ("file:///a%20b", "file:///a%20b"),
        ("S3://Bucket1/WAL/", "s3://bucket1/WAL"),
        ("gs://b/p", "gcs://b/p"),
        ("GS://b/", "gcs://b"),
        ("abfss://c@Account.dfs.core.windows.net/p/", "adls://account.dfs.core.windows.net/c/p"),
        ("abfss://c@account.dfs.core.windows.net", "adls://account.dfs.core.windows.net/c"),
        ("adls://ACCOUNT.dfs.core.windows.net/c//p", "adls://account.dfs.core.windows.net/c/p"),
    ] {
        assert_eq!(canonical(written), url, "{written}");
    }
}

#[test]
fn what_is_refused_says_why_and_what_would_do() {
    for (written, message) in [
        ("", format!("the URL is empty; {FORMS}")),
        ("wal", format!("not a URL; {FORMS}")),
        ("/mnt/my wal", "not a URL; file:///mnt/my%20wal".to_owned()),
        ("ftp://host/wal", format!("unknown scheme \"ftp\"; {FORMS}")),
        ("file://", "the root directory cannot hold a log; a folder below it, file:///absolute/path".to_owned()),
        ("file:////", "the root directory cannot hold a log; a folder below it, file:///absolute/path".to_owned()),
        ("file://data/wal", "a file URL names no host, this one names \"data\"; file:///data/wal".to_owned()),
        ("file://./wal", "a file URL names no host, this one names \".\"; file:///absolute/path".to_owned()),
        ("file:///a/../b", "the path segment \"..\" is not allowed; a path without . and ..".to_owned()),
        ("file:///a/%2e/b", "the path segment \".\" is not allowed; a path without . and ..".to_owned()),
        ("file:///a%2Fb", "the escape \"%2F\" is not allowed; no escaped slash and no control characters".to_owned()),
        ("file:///a%00", "the escape \"%00\" is not allowed; no escaped slash and no control characters".to_owned()),
        ("file:///a%zz", "the escape \"%zz\" is not % and two hexadecimal digits; %25 for a percent sign".to_owned()),
        ("file:///a%", "the escape \"%\" is not % and two hexadecimal digits; %25 for a percent sign".to_owned()),
        ("file:///a%ff", "the path is not UTF-8 when decoded; escapes that decode to UTF-8".to_owned()),
        ("file:///my wal", "the character ' ' must be escaped; %20".to_owned()),
        ("file:///ä", "the character 'ä' must be escaped; %C3%A4".to_owned()),
        ("s3://", "the bucket is empty; s3://bucket/prefix".to_owned()),
        ("gs:///wal", "the bucket is empty; gcs://bucket/prefix".to_owned()),
        (
            "s3://b:9000/wal",
            "a port is not allowed in a storage URL; the default port, or url_options endpoint".to_owned(),
        ),
        (
            "s3://b?x=1",
            "a query is not allowed in a storage URL; scheme, host and path only; settings go into url_options"
                .to_owned(),
        ),
        (
            "s3://b/p#x",
            "a fragment is not allowed in a storage URL; scheme, host and path only; settings go into url_options"
                .to_owned(),
        ),
        (
            "s3://key:secret@b/p",
            "user info is not allowed in a storage URL; credentials in files, named by url_options credentials_dir"
                .to_owned(),
        ),
        ("s3://b..c/p", "\"b..c\" is not a bucket name; s3://bucket/prefix".to_owned()),
        (
            "adls://container/p",
            "\"container\" is not a storage account host; adls://account.dfs.core.windows.net/container/prefix"
                .to_owned(),
        ),
        (
            "adls://a.dfs.core.windows.net/",
            "the container is empty; adls://account.dfs.core.windows.net/container/prefix".to_owned(),
        ),
        (
            "abfss://a.dfs.core.windows.net/p",
            "the container is empty; adls://account.dfs.core.windows.net/container/prefix".to_owned(),
        ),
        (
            "abfss://c:pw@a.dfs.core.windows.net/p",
            "user info is not allowed in a storage URL; credentials in files, named by url_options credentials_dir"
                .to_owned(),
        ),
    ] {
        assert_eq!(refused(written), message, "{written}");
    }
}

#[test]
fn inside_means_whole_path_segments() {
    let inside = |a: &str, b: &str| WalUrl::parse(a).unwrap().is_inside(&WalUrl::parse(b).unwrap());
    assert!(inside("file:///wal/a", "file:///wal"));
    assert!(inside("s3://b/wal", "s3://b"));
    assert!(!inside("file:///wal", "file:///wal"));
    assert!(!inside("file:///wal2", "file:///wal"));
    assert!(!inside("file:///wal", "file:///wal/a"));
    assert!(!inside("s3://b/wal", "gcs://b"));
}

#[test]
fn ancestors_are_what_a_url_is_inside_of() {
    let url = WalUrl::parse("file:///a/b/c").unwrap();
    assert_eq!(url.ancestors().collect::<Vec<_>>(), ["file:///a/b", "file:///a"]);
    let url = WalUrl::parse("s3://b/p/q").unwrap();
    assert_eq!(url.ancestors().collect::<Vec<_>>(), ["s3://b/p", "s3://b"]);
}

#[test]
fn a_path_and_its_url_stand_for_each_other() {
    for path in ["/wal", "/my wal/ü", "/100%/a+b", "/a\u{fffd}"] {
        let url = WalUrl::from_file_path(Path::new(path)).unwrap();
        assert_eq!(url.file_path().unwrap(), Path::new(path));
        assert_eq!(canonical(url.as_str()), url.as_str());
    }
    for path in ["wal", "", "/", "/a/../b", "/a\nb"] {
        assert_eq!(WalUrl::from_file_path(Path::new(path)), None, "{path:?}");
    }
}

#[test]
fn user_info_is_never_shown() {
    assert_eq!(mask_user_info("s3://key:secret@bucket/p"), "s3://***@bucket/p");
    assert_eq!(mask_user_info("http://u:p/w@host:1/x"), "http://***@host:1/x");
    assert_eq!(mask_user_info("abfss://c:secret@a.dfs.core.windows.net/p"), "abfss://***@a.dfs.core.windows.net/p");
    assert_eq!(mask_user_info("abfss://c@a.dfs.core.windows.net/p"), "abfss://c@a.dfs.core.windows.net/p");
    assert_eq!(mask_user_info("file:///wal"), "file:///wal");
}

fn near_url() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[a-zA-Z0-9._~-]{0,6}",
        "%[0-9a-fA-F]{2}",
        Just("/".to_owned()),
        Just("//".to_owned()),
        Just("..".to_owned()),
        Just("@".to_owned()),
        Just(":".to_owned()),
        Just("%".to_owned()),
        Just("?".to_owned()),
        ".{0,2}",
    ];
    (
        prop_oneof![
            Just("file:///"),
            Just("file://"),
            Just("S3://b"),
            Just("gs://"),
            Just("gcs://b/"),
            Just("adls://a.dfs.core.windows.net/c"),
            Just("abfss://c@a.dfs.core.windows.net"),
            Just("")
        ],
        proptest::collection::vec(piece, 0..8),
    )
        .prop_map(|(start, pieces)| format!("{start}{}", pieces.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]

    #[test]
    fn no_text_makes_the_parser_panic(text in any::<String>()) {
        let _ = WalUrl::parse(&text);
        let _ = mask_user_info(&text);
    }

    #[test]
    fn normalising_twice_changes_nothing(text in near_url()) {
        if let Ok(url) = WalUrl::parse(&text) {
            let again = WalUrl::parse(url.as_str()).unwrap();
            prop_assert_eq!(&again, &url);
            prop_assert!(!url.as_str().ends_with('/'));
            prop_assert_eq!(url.ancestors().all(|above| !above.is_empty() && url.as_str().starts_with(above)), true);
        }
    }

    #[test]
    fn every_path_that_has_a_url_comes_back(path in "(/[^/]{1,5}){1,4}") {
        if let Some(url) = WalUrl::from_file_path(Path::new(&path)) {
            prop_assert_eq!(url.file_path().unwrap(), PathBuf::from(&path));
            prop_assert_eq!(WalUrl::parse(url.as_str()).unwrap(), url);
        }
    }
}
