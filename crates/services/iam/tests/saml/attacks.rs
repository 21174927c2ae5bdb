//! What somebody may try who holds an honest assertion, or none: everything here must be refused, and quickly.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::desk::refusal;
use crate::idp::{Bench, HERE, Idp, PROVIDER, attribute, references, response};

fn refused(bench: &Bench, response: &str, contains: &str) {
    let (code, message) = bench.refused(response);
    assert_eq!(code, "InvalidIdentityToken", "{message}");
    assert!(message.contains(contains), "{contains}: {message}");
}

const WRONG: &str = "it is not of this text by a key of the specified provider";

/// The signature alone, as it stands in a signed assertion.
fn signature(signed: &str) -> &str {
    let (from, to) = ("<ds:Signature ", "</ds:Signature>");
    let begin = signed.find(from).unwrap();
    &signed[begin..signed.find(to).unwrap() + to.len()]
}

#[test]
fn what_is_not_signed_or_by_somebody_else_is_refused() {
    let bench = Bench::new();
    let plain = response(&bench.assertion());
    refused(
        &bench,
        &plain,
        "neither the response nor its assertion is signed",
    );
    let other = Idp::new();
    let foreign = response(&other.signed(&bench.assertion(), "_a"));
    refused(&bench, &foreign, WRONG);
    // The key that the signature brings with it is nobody's.
    let certificate = other.metadata();
    let from = certificate.find("<ds:KeyInfo").unwrap();
    let to = certificate.find("</md:KeyDescriptor>").unwrap();
    let brought = foreign.replace(
        "</ds:SignatureValue>",
        &format!("</ds:SignatureValue>{}", &certificate[from..to]),
    );
    refused(&bench, &brought, WRONG);
    // Two signatures of which one is bad.
    let around = bench
        .idp
        .signed(&response(&other.signed(&bench.assertion(), "_a")), "_r");
    refused(&bench, &around, WRONG);
    let inner = bench.idp.signed(&bench.assertion(), "_a");
    refused(&bench, &other.signed(&response(&inner), "_r"), WRONG);
}

#[test]
fn any_change_of_what_was_signed_is_seen() {
    let bench = Bench::new();
    let good = response(&bench.idp.signed(&bench.assertion(), "_a"));
    bench.assume(&good).unwrap();
    for (from, to) in [
        (">ann<", ">bob<"),
        ("ann@example", "bob@example"),
        (r#"Recipient=""#, r#"InResponseTo="x" Recipient=""#),
        ("<saml:AttributeStatement>", "<saml:AttributeStatement> "),
        (
            "</saml:Issuer>",
            "</saml:Issuer><saml:Advice></saml:Advice>",
        ),
        ("<saml:Subject>", r#"<saml:Subject xml:lang="x">"#),
        (r#"ID="_a""#, r#"ID="_a" xml:id="_b""#),
    ] {
        assert!(good.contains(from), "{from}");
        let (code, message) = bench.refused(&good.replacen(from, to, 1));
        assert_eq!(code, "InvalidIdentityToken", "{from}: {message}");
    }
    // Another attribute before, between and after.
    let more = attribute("PrincipalTag:Team", &["admin"]);
    for at in ["<saml:Attribute Name=", "</saml:AttributeStatement>"] {
        refused(&bench, &good.replacen(at, &format!("{more}{at}"), 1), WRONG);
    }
    // What does not change what was signed does no harm.
    for (from, to) in [
        ("<saml:Subject>", "<saml:Subject ><!-- a comment -->"),
        (r#"ID="_a" "#, "xmlns:unused='urn:unused'\n  ID = '_a' "),
        (">ann<", "><![CDATA[ann]]><"),
        (">ann<", ">&#97;nn<"),
    ] {
        bench.assume(&good.replacen(from, to, 1)).unwrap();
    }
}

#[test]
fn a_comment_cuts_no_name_short() {
    let bench = Bench::new();
    // Signed for ann.example's bob; canonical text has no comments, and the name is read whole from it.
    let long = bench.with(">ann<", ">ann.example<");
    let cut = long.replace(">ann.example<", ">ann<!-- -->.example<");
    let answer = bench.assume(&cut).unwrap();
    assert_eq!(answer.subject.as_deref(), Some("ann.example"));
    // An instruction is part of the text that is signed, and a name with one in it is none.
    let cut = bench.with(">ann<", ">ann<?x?>.example<");
    refused(&bench, &cut, "its subject has no name");
    let cut = bench.with(">ann<", ">ann<saml:x></saml:x><");
    refused(&bench, &cut, "its subject has no name");
}

/// The eight places of the classic attack, and some more: an honest, signed assertion somewhere in a document in
/// which another one is to be believed.
#[test]
fn an_honest_assertion_vouches_for_no_other() {
    let bench = Bench::new();
    let honest = bench.idp.signed(&bench.assertion(), "_a");
    let around = bench
        .idp
        .signed(&response(&bench.assertion().replace(HERE, "")), "_r");
    bench.assume(&response(&honest)).unwrap();
    bench.assume(&around).unwrap();
    let evil = |signature: &str, id: &str| {
        let evil = bench.assertion().replace(">ann<", ">admin<");
        evil.replace(HERE, signature)
            .replace(r#"ID="_a""#, &format!(r#"ID="{id}""#))
    };
    let bare = honest.replace(signature(&honest), "");
    let of_honest = signature(&honest);
    let with_object = |object: &str| {
        of_honest.replace(
            "</ds:Signature>",
            &format!("<ds:Object>{object}</ds:Object></ds:Signature>"),
        )
    };
    let extended = |inner: &str| format!("<samlp:Extensions>{inner}</samlp:Extensions>");
    let inside = |outer: &str, inner: &str| {
        outer.replace("</saml:Assertion>", &format!("{inner}</saml:Assertion>"))
    };
    let evil_response = |of: &str, object: &str| {
        let copy = signature(&around).replace(
            "</ds:Signature>",
            &format!("<ds:Object>{object}</ds:Object></ds:Signature>"),
        );
        response(&evil("", "_e"))
            .replace(HERE, &copy)
            .replace("_r", of)
    };
    for (attack, forged) in [
        (
            "beside, first",
            response(&format!("{}{honest}", evil("", "_e"))),
        ),
        (
            "beside, last",
            response(&format!("{honest}{}", evil("", "_e"))),
        ),
        ("the signature moved", response(&evil(of_honest, "_e"))),
        (
            "the signature and the id moved",
            response(&evil(of_honest, "_a")),
        ),
        (
            "in the signature's object",
            response(&evil(&with_object(&bare), "_e")),
        ),
        (
            "in the object, one id",
            response(&evil(&with_object(&bare), "_a")),
        ),
        (
            "in the object, signed",
            response(&evil(&with_object(&honest), "_e")),
        ),
        (
            "in extensions",
            response(&format!("{}{}", extended(&honest), evil("", "_e"))),
        ),
        (
            "in extensions, one id",
            response(&format!("{}{}", extended(&bare), evil(of_honest, "_a"))),
        ),
        (
            "in the other's end",
            response(&inside(&evil(of_honest, "_e"), &bare)),
        ),
        (
            "in the other's end, one id",
            response(&inside(&evil(of_honest, "_a"), &bare)),
        ),
        (
            "in the other's end, signed",
            response(&inside(&evil("", "_e"), &honest)),
        ),
        (
            "around the other",
            response(&inside(&honest, &evil("", "_e"))),
        ),
        ("a response in an object", evil_response("_e", &around)),
        (
            "a response in an object, one id",
            evil_response("_r", &around),
        ),
        (
            "a response in a response",
            response(&format!("{}{}", around, evil("", "_e"))),
        ),
        (
            "a signed response's place taken",
            around.replace(">ann<", ">admin<"),
        ),
        (
            "the response's signature in the assertion",
            response(&evil(signature(&around), "_r")).replacen(r#"ID="_r""#, r#"ID="_s""#, 1),
        ),
    ] {
        let (code, message) = bench.refused(&forged);
        assert_eq!(code, "InvalidIdentityToken", "{attack}: {message}");
    }
    // An assertion that is the root itself is no response.
    refused(&bench, &honest, "its root is another element");
}

#[test]
fn a_signature_of_another_form_is_none() {
    let bench = Bench::new();
    let text = bench.assertion();
    let usual = references(&text, "_a");
    let enveloped = r#"<ds:Transform Algorithm="http://www.w3.org/2000/09/xmldsig#enveloped-signature"></ds:Transform>"#;
    let exclusive =
        r#"<ds:Transform Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"></ds:Transform>"#;
    let xpath = r#"<ds:Transform Algorithm="http://www.w3.org/TR/1999/REC-xpath-19991116"><ds:XPath>false()</ds:XPath></ds:Transform>"#;
    let reference = &usual[usual.find("<ds:Reference").unwrap()..];
    for (info, contains) in [
        (
            usual.replace(r##"URI="#_a""##, r#"URI="""#),
            "not of the element",
        ),
        (usual.replace(r##" URI="#_a""##, ""), "not of the element"),
        (usual.replace("#_a", "#_r"), "not of the element"),
        (
            usual.replace("#_a", "#xpointer(id('_a'))"),
            "not of the element",
        ),
        (
            usual.replace("#_a", "https://evil.example/#_a"),
            "not of the element",
        ),
        (format!("{usual}{reference}"), "not exactly one reference"),
        (usual.replace(reference, ""), "not exactly one reference"),
        (usual.replace(exclusive, ""), "the transforms are not"),
        (usual.replace(enveloped, ""), "the transforms are not"),
        (
            usual.replace(exclusive, xpath),
            "REC-xpath-19991116 is not built",
        ),
        (
            usual.replace(
                &format!("{enveloped}{exclusive}"),
                &format!("{exclusive}{enveloped}"),
            ),
            "is not built",
        ),
        (
            usual.replace(exclusive, &format!("{xpath}{exclusive}")),
            "the transforms are not",
        ),
        (
            usual.replace("xmlenc#sha256", "xmldsig-more#md5"),
            "md5 is not built",
        ),
        (
            usual.replace(
                "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha256",
                "http://www.w3.org/2000/09/xmldsig#rsa-sha1",
            ),
            "rsa-sha1 is not built",
        ),
        (
            usual.replace("ecdsa-sha256", "hmac-sha256"),
            "hmac-sha256 is not built",
        ),
        // A key of another kind than the signature says.
        (usual.replace("ecdsa-sha256", "rsa-sha256"), WRONG),
        (
            usual.replacen(
                "http://www.w3.org/2001/10/xml-exc-c14n#",
                "http://www.w3.org/TR/2001/REC-xml-c14n-20010315",
                1,
            ),
            "REC-xml-c14n-20010315 is not built",
        ),
        (
            usual.replace("<ds:DigestValue>", "<ds:DigestValue>AAAA"),
            WRONG,
        ),
        (String::new(), "a method is missing"),
    ] {
        assert_ne!(info, usual, "{contains}");
        refused(
            &bench,
            &response(&bench.idp.signed_by(&text, &info)),
            contains,
        );
    }
    let good = bench.idp.signed_by(&text, &usual);
    bench.assume(&response(&good)).unwrap();
    let twice = good.replace(signature(&good), &signature(&good).repeat(2));
    refused(&bench, &response(&twice), "several signatures");
    for value in ["", "AAAA", "not base64", &"A".repeat(4000)] {
        let begin = good.find("<ds:SignatureValue>").unwrap() + 19;
        let end = good.find("</ds:SignatureValue>").unwrap();
        let forged = format!("{}{value}{}", &good[..begin], &good[end..]);
        assert_eq!(bench.refused(&response(&forged)).0, "InvalidIdentityToken");
    }
}

#[test]
fn entities_are_never_expanded_and_nothing_is_large() {
    let bench = Bench::new();
    let good = response(&bench.idp.signed(&bench.assertion(), "_a"));
    let mut bomb = String::from(r#"<!DOCTYPE a [<!ENTITY e0 "ann">"#);
    for n in 1..30 {
        bomb += &format!(r#"<!ENTITY e{n} "&e{};&e{0};">"#, n - 1);
    }
    bomb += "]>";
    let not_xml = "not well-formed XML without a document type";
    for (prefix, from, to) in [
        (bomb.as_str(), ">ann<", ">&e29;<"),
        (r#"<!DOCTYPE a [<!ENTITY who "ann">]>"#, ">ann<", ">&who;<"),
        (
            r#"<!DOCTYPE a SYSTEM "file:///etc/passwd">"#,
            ">ann<",
            ">ann<",
        ),
        (
            r#"<!DOCTYPE a [<!ATTLIST a ID ID #IMPLIED>]>"#,
            ">ann<",
            ">ann<",
        ),
        ("", ">ann<", ">&who;<"),
        ("", "</samlp:Response>", ""),
        ("", "</samlp:Response>", "</samlp:Response><a/>"),
    ] {
        refused(
            &bench,
            &format!("{prefix}{}", good.replace(from, to)),
            not_xml,
        );
    }
    refused(&bench, &"<a>".repeat(20_000), not_xml);
    let deep = format!("{}{}", "<a>".repeat(10_000), "</a>".repeat(10_000));
    refused(&bench, &deep, not_xml);
    let deep = good.replace(HERE, &format!("{}{}", "<a>".repeat(40), "</a>".repeat(40)));
    refused(&bench, &deep, not_xml);
    // As wide as a request may be: many elements, attributes and namespaces.
    let many: String = (0..4000).map(|n| format!("<a{n}/>")).collect();
    let attributes: String = (0..5000).map(|n| format!(" a{n}='1'")).collect();
    let namespaces: String = (0..3000).map(|n| format!(" xmlns:a{n}='u'")).collect();
    bench.assume(&good.replace(HERE, &many)).unwrap();
    bench
        .assume(&good.replace(HERE, &format!("<a{attributes}/>")))
        .unwrap();
    bench
        .assume(&good.replacen(" ID=", &format!("{namespaces} ID="), 1))
        .unwrap();
    // A list of prefixes that is as long.
    let text = bench.assertion();
    let prefixes: String = (0..3000).map(|n| format!("a{n} ")).collect();
    let info = references(&text, "_a").replace(
        r#"xml-exc-c14n#"></ds:Transform>"#,
        &format!(r#"xml-exc-c14n#"><ec:InclusiveNamespaces xmlns:ec="http://www.w3.org/2001/10/xml-exc-c14n#" PrefixList="{prefixes}"></ec:InclusiveNamespaces></ds:Transform>"#),
    );
    bench
        .assume(&response(&bench.idp.signed_by(&text, &info)))
        .unwrap();
}

#[test]
fn what_is_no_response_says_so() {
    let bench = Bench::new();
    for (bytes, contains) in [
        ("****".to_owned(), "Invalid base64 SAMLResponse"),
        (
            STANDARD.encode([0xff, 0xfe, 0, 1]),
            "Invalid base64 SAMLResponse",
        ),
        (STANDARD.encode("{}"), "not well-formed XML"),
        (STANDARD.encode("<a/>"), "its root is another element"),
        (
            STANDARD.encode(response("").replace(r#"Version="2.0""#, r#"Version="1.1""#)),
            "its root is another element",
        ),
        (STANDARD.encode(response("")), "not exactly one assertion"),
    ] {
        let answer = bench.assume_with("", |input| input.saml_assertion = bytes.clone());
        let (code, message) = refusal(answer);
        assert_eq!(code, "InvalidIdentityToken");
        assert!(message.contains(contains), "{message}");
    }
    // The provider says no; and it says what only its own key could read.
    let failed = response("").replace("status:Success", "status:Responder");
    let (code, message) = bench.refused(&failed);
    assert_eq!(code, "IDPRejectedClaim");
    assert!(message.contains("authentication failed"), "{message}");
    let hidden = response(
        r#"<saml:EncryptedAssertion xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion"></saml:EncryptedAssertion>"#,
    );
    let (code, message) = bench.refused(&hidden);
    assert_eq!(code, "NotImplemented");
    assert!(message.contains("EncryptedAssertion"), "{message}");
    // Lines may end in base64, as providers write it.
    let good = STANDARD.encode(bench.with(HERE, HERE));
    let lines: Vec<&str> = good
        .as_bytes()
        .chunks(76)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    let answer = bench.assume_with("", |input| input.saml_assertion = lines.join("\r\n"));
    assert!(answer.is_ok(), "{PROVIDER}");
}
