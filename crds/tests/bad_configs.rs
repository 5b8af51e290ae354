//! Every kind of wrong configuration is refused with exactly the messages of `bad_configs.txt`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use walstorage_crds::config::Config;

/// Name, text and messages of every case.
fn cases() -> Vec<(&'static str, &'static str, &'static str)> {
    let corpus = include_str!("bad_configs.txt");
    let parts = corpus.split("\n### ").skip(1).map(|part| {
        let (name, rest) = part.split_once('\n').expect("a name ends its line");
        let (text, messages) = rest.split_once("\n---\n").expect("a line --- before the messages");
        (name, text, messages.trim_end())
    });
    parts.collect()
}

#[test]
fn every_wrong_configuration_says_exactly_what_is_wrong() {
    let cases = cases();
    assert!(cases.len() >= 90, "only {} cases were read", cases.len());
    for (name, text, messages) in cases {
        match Config::parse(text, false) {
            Ok(loaded) => panic!("{name}: loaded as {:?}", loaded.config),
            Err(errors) => assert_eq!(errors.to_string(), messages, "{name}"),
        }
    }
}

#[test]
fn a_wrong_setting_is_wrong_beside_every_other_one() {
    // All cases in one file cannot be TOML, so pairs: what a first setting says must not hide what a second one says.
    let settings: Vec<_> = cases()
        .into_iter()
        .filter(|(_, text, _)| text.starts_with("[storage.wal_config]\n") && text.lines().count() == 2)
        .collect();
    for (name, text, messages) in &settings {
        for (other_name, other, other_messages) in &settings {
            let key = |text: &str| text.lines().nth(1).unwrap().split(' ').next().unwrap().to_owned();
            let related = |a: &str, b: &str| a.starts_with("wal_url") && b.starts_with("wal_url");
            if key(text) == key(other) || related(&key(text), &key(other)) {
                continue;
            }
            let both = format!("{text}\n{}", other.lines().nth(1).unwrap());
            let found = Config::parse(&both, false).unwrap_err().to_string();
            // Bounds refer to each other, so only the setting is compared there.
            let expect = |messages: &str, line: usize| messages.replacen("line 2", &format!("line {line}"), 9);
            for message in expect(messages, 2).lines().chain(expect(other_messages, 3).lines()) {
                let bound = message.contains("_threshold = ") || message.contains("memory_flush_size_bytes = ");
                assert!(bound || found.contains(message), "{name} and {other_name}: {message} is not in\n{found}");
            }
        }
    }
}
