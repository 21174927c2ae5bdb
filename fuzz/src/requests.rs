//! Requests of AWS's protocols through the generated types, and the answers to wrong ones.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::{Stream, stream};
use gantry_api::event_stream::{Event, EventStream};
use gantry_api::protocol::{self, Protocol, Reply, json, timestamp};
use gantry_api::schema::TimestampFormat;
use gantry_api::{ApiError, logs, validate};
use http::request::Parts;

use crate::{first_line, text};

/// `X-Amz-Target` in the first line, the body after it.
pub fn json(data: &[u8]) {
    let (target, body) = first_line(data);
    let request = http::Request::post("/")
        .header("x-amz-target", target)
        .header("content-type", "application/x-amz-json-1.1");
    if let Ok(request) = request.body(()) {
        answer(&request.into_parts().0, body, None);
    }
}

/// The service of the SigV4 scope in the first line, the form after it.
pub fn query(data: &[u8]) {
    let (scope, body) = first_line(data);
    let request =
        http::Request::post("/").header("content-type", "application/x-www-form-urlencoded");
    if let Ok(request) = request.body(()) {
        answer(&request.into_parts().0, body, text(scope));
    }
}

/// Everything between the bytes and the operation. What was read is written and read to the same;
/// what is wrong is answered with a body that its protocol can carry.
fn answer(parts: &Parts, body: &[u8], scope: Option<&str>) {
    let call = match protocol::detect(parts, body, scope) {
        Ok(call) => call,
        Err(rejection) => return well_formed(&rejection.reply("request")),
    };
    let refuse = |error: &ApiError| {
        let reply = call
            .protocol
            .write_error(Some(call.service), error, "request");
        assert!((400..600).contains(&reply.status), "{reply:?}");
        well_formed(&reply);
    };
    let Some((_, operation)) = call.service.operation(&call.operation) else {
        return refuse(&call.protocol.unknown_operation(&call.operation, ""));
    };
    let mut input = (operation.new_input)();
    let body = Bytes::copy_from_slice(body);
    let missing = match call
        .protocol
        .read_request(operation, parts, &body, input.as_mut())
    {
        Ok(missing) => missing,
        Err(error) => return refuse(&error),
    };
    if let Err(error) = validate::check(call.service.validation, input.as_ref(), &missing) {
        refuse(&error);
    }
    let written = json::write(input.as_ref());
    let mut again = (operation.new_input)();
    json::read(&written, again.as_mut()).expect("what was written can be read");
    let (once, twice) = (value(&written), value(&json::write(again.as_ref())));
    assert!(
        crate::same_but_for_rounding(&once, &twice),
        "{once}\n{twice}"
    );
}

fn value(bytes: &[u8]) -> serde_json::Value {
    serde_json::from_slice(bytes).expect("a JSON document")
}

/// The code in the first line and the message after it: errors that carry what a stranger said.
pub fn answers(data: &[u8]) {
    let (Some(code), Some(message)) = (text(first_line(data).0), text(first_line(data).1)) else {
        return;
    };
    let error = ApiError::sender(code, message);
    for name in ["ecs", "ecr", "logs", "iam", "sts"] {
        let service = protocol::model(name).expect("a service");
        let query: &dyn Protocol = &protocol::query::QUERY;
        for protocol in [query, &json::JSON_1_0, &json::JSON_1_1] {
            well_formed(&protocol.write_error(Some(service), &error, "request"));
        }
        let reply = json::JSON_1_1.write_error(Some(service), &error, "request");
        assert_eq!(json::read_error(reply.status, &reply.body).message, message);
    }
}

fn well_formed(reply: &Reply) {
    let content_type = reply.header("content-type").unwrap_or_default();
    if content_type.contains("json") {
        assert!(value(&reply.body).is_object(), "{reply:?}");
    } else {
        let xml = text(&reply.body).expect("XML is text");
        assert!(is_well_formed(xml), "{xml}");
    }
    for (_, header) in &reply.headers {
        assert!(http::HeaderValue::from_str(header).is_ok(), "{reply:?}");
    }
}

/// Elements end in the order in which they began, and there is no character that XML does not have.
fn is_well_formed(xml: &str) -> bool {
    let is_allowed = |c: char| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
    let mut open = Vec::new();
    let mut rest = xml;
    while let Some(at) = rest.find('<') {
        let Some(end) = rest[at..].find('>') else {
            return false;
        };
        let tag = &rest[at + 1..at + end];
        rest = &rest[at + end + 1..];
        match tag.strip_prefix('/') {
            Some(name) if open.pop() != Some(name) => return false,
            Some(_) => {}
            None if tag.starts_with('?') || tag.ends_with('/') => {}
            None => open.push(tag.split(' ').next().unwrap_or_default()),
        }
    }
    open.is_empty() && xml.chars().all(is_allowed)
}

/// Events whose texts a stranger wrote come out of the frames as they went in.
pub fn event_streams(data: &[u8]) {
    let messages: Vec<String> = data
        .split(|byte| *byte == b'\n')
        .map(|line| String::from_utf8_lossy(line).into_owned())
        .collect();
    let update = logs::LiveTailSessionUpdate {
        session_results: Some(
            messages
                .iter()
                .map(|message| logs::LiveTailSessionLogEvent {
                    message: Some(message.clone()),
                    ..Default::default()
                })
                .collect(),
        ),
        ..Default::default()
    };
    let payload = json::write(&update);
    let error = ApiError::sender("SessionTimeoutException", messages.concat());
    let events = EventStream::new(stream::iter([
        Ok(Event::new("sessionUpdate", update)),
        Err(error),
    ]));
    let mut frames = pin!(events.frames());
    let mut seen = Vec::new();
    while let Poll::Ready(Some(frame)) = frames
        .as_mut()
        .poll_next(&mut Context::from_waker(Waker::noop()))
    {
        seen.push(read_frame(&frame.expect("frames are made in memory")));
    }
    let [first, second, third] = &seen[..] else {
        panic!("{} frames", seen.len());
    };
    assert_eq!(
        (first.0.as_str(), &first.1[..]),
        ("initial-response", &b"{}"[..])
    );
    assert_eq!((second.0.as_str(), &second.1), ("sessionUpdate", &payload));
    assert_eq!(third.0, "SessionTimeoutException");
    assert_eq!(value(&third.1)["message"], messages.concat());
}

/// The kind and the payload of a frame, read by AWS's description of the format.
fn read_frame(frame: &[u8]) -> (String, Vec<u8>) {
    let number = |at: usize| u32::from_be_bytes(frame[at..at + 4].try_into().expect("4 bytes"));
    assert_eq!(number(0) as usize, frame.len());
    assert_eq!(number(8), crc32(&frame[..8]));
    assert_eq!(number(frame.len() - 4), crc32(&frame[..frame.len() - 4]));
    let head_end = 12 + number(4) as usize;
    let mut head = &frame[12..head_end];
    let mut kind = String::new();
    while let [length, rest @ ..] = head {
        let (name, rest) = rest.split_at(usize::from(*length));
        assert_eq!(rest[0], 7, "a text");
        let length = usize::from(u16::from_be_bytes([rest[1], rest[2]]));
        if matches!(name, b":event-type" | b":exception-type") {
            kind = String::from_utf8_lossy(&rest[3..3 + length]).into_owned();
        }
        head = &rest[3 + length..];
    }
    (kind, frame[head_end..frame.len() - 4].to_vec())
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

/// A moment that was read is written and read to the same, to the precision of the format.
pub fn timestamps(data: &[u8]) {
    let Some(text) = text(data) else { return };
    if let Some(time) = timestamp::parse(text) {
        let whole = time.as_millis().rem_euclid(1000) == 0;
        // Years of four digits; beyond them nothing but seconds since the epoch has a text.
        let is_dated = (-62_135_596_800_000..253_402_300_800_000).contains(&time.as_millis());
        for (format, is_exact) in [
            (TimestampFormat::EpochSeconds, true),
            (TimestampFormat::Iso8601, is_dated),
            (TimestampFormat::HttpDate, is_dated && whole),
        ] {
            let written = timestamp::format(time, format);
            if is_exact {
                assert_eq!(timestamp::parse(&written), Some(time), "{written}");
            }
        }
    }
    if let Some(time) = gantry_api::sigv4::parse_amz_date(text)
        // A leap second is the next day's first.
        && !text.ends_with("60Z")
        && time.as_millis() > -62_135_596_800_000
    {
        assert_eq!(gantry_api::sigv4::format_amz_date(time), text);
    }
}
