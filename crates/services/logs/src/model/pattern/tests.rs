use proptest::prelude::*;

use super::{FilterPattern, MAX_PATTERN_CHARS};

fn matches(pattern: &str, message: &str) -> bool {
    match FilterPattern::parse(pattern) {
        Ok(parsed) => parsed.matches(message),
        Err(error) => panic!("{pattern}: {error}"),
    }
}

fn check(pattern: &str, matched: &[&str], refused: &[&str]) {
    for message in matched {
        assert!(matches(pattern, message), "{pattern} must match {message}");
    }
    for message in refused {
        assert!(
            !matches(pattern, message),
            "{pattern} must refuse {message}"
        );
    }
}

const BAD: &str = "[ERROR 400] BAD REQUEST";
const UNAUTHORIZED: &str = "[ERROR 401] UNAUTHORIZED REQUEST";
const ARGUMENTS: &str = "[ERROR 419] MISSING ARGUMENTS";
const INVALID: &str = "[ERROR 420] INVALID ARGUMENTS";
const INFO: &str = "[INFO] REQUEST FAILED";

#[test]
fn terms_are_all_any_or_none() {
    check("", &["", INFO], &[]);
    check("  ", &["x"], &[]);
    check("ERROR", &[BAD, INVALID], &[INFO, "error"]);
    check("ERROR ARGUMENTS", &[ARGUMENTS, INVALID], &[BAD]);
    check("?ERROR ?FAILED", &[BAD, INFO], &["[WARN] x"]);
    check("ERROR -ARGUMENTS", &[BAD, UNAUTHORIZED], &[ARGUMENTS, INFO]);
    check("-ERROR", &[INFO], &[BAD]);
    check(
        r#""INTERNAL SERVER ERROR""#,
        &["500 INTERNAL SERVER ERROR"],
        &["INTERNAL ERROR"],
    );
    check(r#"-"BAD REQUEST""#, &[INFO], &[BAD]);
    check(r#""say \"hi\"""#, &[r#"I say "hi" to you"#], &["say hi"]);
    // A question mark next to other terms says nothing.
    check("?INFO REQUEST", &[BAD, INFO], &[ARGUMENTS]);
}

#[test]
fn expressions_stand_between_percent_signs() {
    check(
        "%AUTHORIZED%",
        &[UNAUTHORIZED, "[SUCCESS 200] AUTHORIZED"],
        &[BAD],
    );
    check(r"%ERROR 4[0-9]{2}\]%", &[BAD], &["[ERROR 500]"]);
    check("%^.ERROR%", &[BAD], &["an [ERROR"]);
    check("-%40[01]%", &[ARGUMENTS], &[BAD, UNAUTHORIZED]);
    check(r"%10\.10\.0\.1%", &["from 10.10.0.1"], &["10x10x0x1"]);
    for bad in [
        "%(a)%",
        "%a!%",
        "%ä%",
        "%a",
        "%[%",
        "%a{9999}{9999}%",
        "%a%%b%%c%",
    ] {
        assert!(FilterPattern::parse(bad).is_err(), "{bad}");
    }
}

const TRAIL: &str = r#"{
  "eventType": "UpdateTrail", "sourceIPAddress": "111.111.111.111", "arrayKey": ["value", "another"],
  "objectList": [{"name": "a", "id": 1}, {"name": "b", "id": 2}], "SomeObject": null,
  "cluster.name": "c", "latency": 150.5, "flag": true, "status": "404", "code": 404 }"#;

#[test]
fn json_is_selected_by_its_members() {
    for pattern in [
        r#"{ $.eventType = "UpdateTrail" }"#,
        "{ $.eventType = UpdateTrail }",
        r#"{$.eventType="Update*"}"#,
        r#"{ $.eventType = "*Tr*l" }"#,
        "{ $.eventType = * }",
        "{ $.latency = \"*\" }",
        "{ $.sourceIPAddress != 123.123.* }",
        "{ $.arrayKey[0] = \"value\" }",
        "{ $.arrayKey[*] = \"another\" }",
        "{ $.objectList[1].id = 2 }",
        "{ $.objectList[*].id > 1 }",
        "{ $.SomeObject IS NULL }",
        "{ $.SomeOtherObject NOT EXISTS }",
        "{ $.objectList[2] NOT EXISTS }",
        "{ $.flag IS TRUE }",
        "{ $.flag is true }",
        "{ $.latency > 150 && $.latency <= 1.505e2 }",
        "{ $.latency < +151 }",
        "{ $.code = 404 && $.code = 4* && $.status = 404 && $.status = \"404\" }",
        "{ $['cluster.name'] = \"c\" && $.[\"cluster.name\"] = c }",
        "{ ($.eventType = X) || (($.eventType = UpdateTrail) && ($.latency != 3)) }",
        "{ $.eventType = X || $.eventType = UpdateTrail && $.code = 404 }",
        "{ $.sourceIPAddress = %^111\\.1{3}% }",
        "{ $.eventType != %Delete% }",
    ] {
        check(pattern, &[TRAIL], &["UpdateTrail", "{", "[]", "7"]);
    }
    for pattern in [
        r#"{ $.eventType = "updatetrail" }"#,
        r#"{ $.eventType = "Update" }"#,
        "{ $.eventType != * }",
        "{ $.absent != x }",
        "{ $.absent = * }",
        "{ $.SomeObject = * }",
        "{ $.code = \"404\" }",
        "{ $.flag IS FALSE }",
        "{ $.SomeObject NOT EXISTS }",
        "{ $.arrayKey[7] = x }",
        "{ $.eventType > 3 }",
        "{ $.eventType = UpdateTrail && ($.code = 405 || $.code = 406) }",
    ] {
        check(pattern, &[], &[TRAIL]);
    }
    for bad in [
        "{}",
        "{ $ }",
        "{ $.a }",
        "{ a = 1 }",
        "{ $.a = }",
        "{ $.a = 1",
        "{ $.a > x }",
        "{ $.a IS X }",
        "{ $.a NOT NULL }",
        "{ $.a = 1 } x",
        "{ $.a[x] = 1 }",
        "{ ($.a = 1 }",
        "{ $.a = %x% && $.a = %y% && $.a = %z% }",
    ] {
        assert!(FilterPattern::parse(bad).is_err(), "{bad}");
    }
}

const ACCESS: &str =
    r#"127.0.0.1 - frank [10/Oct/2000:13:25:15 -0700] "GET /index.html HTTP/1.0" 404 1534"#;

#[test]
fn words_are_selected_by_their_place() {
    for pattern in [
        "[ip, identity, user_id, timestamp, request, status_code, size]",
        "[ip, identity, user_id, timestamp, request, status_code = 404, size]",
        "[ip, user, username, timestamp, request = *html*, status_code = 4*, bytes]",
        "[..., size > 1000]",
        "[..., status_code = 404 || status_code = 410, size]",
        "[ip, ..., status_code != 2* && status_code != 3*, size]",
        "[ip=%127\\.0\\.0\\.[1-9]%, ...]",
        "[ip, ...]",
        "[...]",
        "[a,b,c,d,request=\"GET /index.html HTTP/1.0\",...]",
        "[..., (s = 404 || s = 410) && s > 3, n]",
    ] {
        check(pattern, &[ACCESS], &[]);
    }
    check(
        "[w1=ERROR, w2]",
        &["ERROR x"],
        &["ERROR", "ERROR x y", "x ERROR"],
    );
    check("[w1!=ERROR&&w1!=WARN, w2]", &["INFO x"], &["WARN x"]);
    check("[..., size > 1534]", &[], &[ACCESS, "a b"]);
    check("[a, b]", &[r#""x y" [z"#], &[r#""x y""#]);
    for bad in [
        "[",
        "[]",
        "[a",
        "[a,]",
        "[a = ]",
        "[a = x, ..., b, ...]",
        "[a=1||b=2]",
        "[a] x",
        "[=x]",
    ] {
        assert!(FilterPattern::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn what_is_named_is_given_back() {
    let pairs = |pattern: &str, message: &str| {
        let found = FilterPattern::parse(pattern).unwrap().extract(message);
        found.map(|found| {
            found
                .into_iter()
                .map(|(k, v)| format!("{k}:{v}"))
                .collect::<Vec<_>>()
        })
    };
    assert_eq!(
        pairs("[..., size]", ACCESS).unwrap(),
        [
            "$1:127.0.0.1",
            "$2:-",
            "$3:frank",
            "$4:10/Oct/2000:13:25:15 -0700",
            "$5:GET /index.html HTTP/1.0",
            "$6:404",
            "$size:1534"
        ]
    );
    assert_eq!(pairs("[a, b]", "x y").unwrap(), ["$a:x", "$b:y"]);
    assert_eq!(
        pairs(
            "{ $.code = 404 && $.eventType = * && $.no NOT EXISTS }",
            TRAIL
        )
        .unwrap(),
        ["$.code:404", "$.eventType:UpdateTrail"]
    );
    assert_eq!(pairs("ERROR", BAD).unwrap(), [""; 0]);
    assert_eq!(pairs("ERROR", INFO), None);
}

#[test]
fn words_of_more_than_letters_need_quotes() {
    assert_eq!(
        FilterPattern::parse("a /b").unwrap_err().to_string(),
        "Invalid character(s) in term '/b'"
    );
    assert!(FilterPattern::parse(&"x".repeat(MAX_PATTERN_CHARS + 1)).is_err());
    assert!(FilterPattern::parse(&format!("{{{}", "(".repeat(1000))).is_err());
}

/// Texts that look like patterns more often than chance would have it.
fn pattern_text() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just("{ "),
        Just(" }"),
        Just("["),
        Just("]"),
        Just("$."),
        Just("a"),
        Just("b"),
        Just("[0]"),
        Just(" = "),
        Just(" != "),
        Just(" > "),
        Just("\""),
        Just("%"),
        Just("*"),
        Just("&&"),
        Just("||"),
        Just("("),
        Just(")"),
        Just("..."),
        Just(","),
        Just("1"),
        Just("-"),
        Just("?"),
        Just(" "),
        Just(" IS NULL"),
        Just(" NOT EXISTS"),
        Just("\\"),
        Just("ü"),
        Just("[*]"),
    ];
    prop_oneof![
        3 => prop::collection::vec(word, 0..14).prop_map(|words| words.concat()),
        1 => any::<String>(),
    ]
}

fn message_text() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just("{\"a\":"),
        Just("\"b\""),
        Just("}"),
        Just("1"),
        Just("["),
        Just("]"),
        Just(","),
        Just("a"),
        Just(" "),
        Just("null"),
        Just("\\u0061"),
        Just("ü"),
        Just("\""),
        Just("{\"a\":\"ab\"}"),
        Just("{\"\\u0061\":1}"),
        Just("{\"a\":[{\"b\":1}]}"),
    ];
    prop_oneof![
        3 => prop::collection::vec(word, 0..8).prop_map(|words| words.concat()),
        1 => any::<String>(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_it_panic_and_what_is_extracted_is_what_matches(
        pattern in pattern_text(), message in message_text(),
    ) {
        if let Ok(parsed) = FilterPattern::parse(&pattern) {
            let matched = parsed.matches(&message);
            prop_assert_eq!(parsed.extract(&message).is_some(), matched);
            let prefilter = parsed.prefilter();
            if let (true, Some(needle)) = (matched, &prefilter.needle) {
                let passes = message.contains(needle.as_str())
                    || (prefilter.or_backslash && message.contains('\\'));
                prop_assert!(passes, "{:?} of {}", prefilter, pattern);
            }
        }
    }

    #[test]
    fn a_glob_is_the_expression_that_it_stands_for(glob in "[ab*]{0,8}", text in "[ab]{0,12}") {
        let expression = format!("^{}$", glob.replace('*', ".*"));
        let expected = regex::Regex::new(&expression).unwrap().is_match(&text);
        prop_assert_eq!(super::compare::matches_glob(&glob, &text), expected);
    }

    #[test]
    fn a_quoted_phrase_is_found_where_it_is(before in any::<String>(), phrase in "[^\\\\\"]{1,9}", after in any::<String>()) {
        let pattern = FilterPattern::parse(&format!("\"{phrase}\"")).unwrap();
        let message = format!("{before}{phrase}{after}");
        prop_assert!(pattern.matches(&message));
        let other = format!("{before}{after}");
        prop_assert_eq!(pattern.matches(&other), other.contains(&phrase));
    }
}
