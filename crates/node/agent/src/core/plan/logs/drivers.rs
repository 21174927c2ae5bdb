//! What each driver's options say.

use std::collections::BTreeMap;
use std::time::Duration;

use regex::Regex;

use super::options::{Options, host_and_port};
use super::{
    Address, AwsLogsPlan, FluentdPlan, GelfCompression, GelfPlan, JsonFilePlan, LogSource, Logged,
    LokiPlan, SyslogFormat, SyslogPlan, multiline,
};
use crate::core::plan::unknown::not_built;

const FLUENTD_PORT: u16 = 24224;
const SYSLOG_PORT: u16 = 514;
const LOKI_PATH: &str = "/loki/api/v1/push";
/// Docker's own numbers.
const FLUENTD_RETRY_WAIT: Duration = Duration::from_secs(1);
const AWSLOGS_FLUSH_SECONDS: u32 = 5;
const GELF_LEVEL: u32 = 1;
/// Those of Loki's driver for Docker.
const LOKI_BATCH_BYTES: u64 = 1 << 20;
const LOKI_BATCH_WAIT: Duration = Duration::from_secs(1);
const LOKI_BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(300));
const LOKI_TIMEOUT: Duration = Duration::from_secs(10);
const LOKI_RETRIES: u32 = 10;

pub(super) fn awslogs(
    options: &mut Options<'_>,
    logged: Logged<'_>,
) -> Result<AwsLogsPlan, String> {
    let Logged {
        container, task_id, ..
    } = logged;
    let prefix = options.take("awslogs-stream-prefix");
    // The server has resolved the prefix where the name is given whole.
    let stream = options.take("awslogs-stream");
    let tag = options.take("tag");
    let stream = match (stream, prefix, tag) {
        (Some(stream), _, _) => stream,
        (None, Some(prefix), _) => format!("{prefix}/{container}/{task_id}"),
        (None, None, Some(tag)) => {
            template(&tag, logged).map_err(|why| format!("{}: {why}", options.bad("tag", &tag)))?
        }
        // Docker names the stream by the container's id, which is drawn from the task's here.
        (None, None, None) => container_id(logged),
    };
    let pattern = options.take("awslogs-multiline-pattern");
    let format = options.take("awslogs-datetime-format");
    let named =
        |name: &str, value: &str, why: String| format!("{}: {why}", options.bad(name, value));
    let begins_event = match (&pattern, &format) {
        (Some(_), Some(_)) => {
            return Err(format!(
                "container '{container}': log options 'awslogs-datetime-format' and 'awslogs-multiline-pattern' cannot be given together"
            ));
        }
        (Some(text), None) => Some(
            multiline::pattern(text)
                .map_err(|why| named("awslogs-multiline-pattern", text, why))?,
        ),
        (None, Some(text)) => Some(
            multiline::datetime(text).map_err(|why| named("awslogs-datetime-format", text, why))?,
        ),
        (None, None) => None,
    };
    let flush = options.number("awslogs-force-flush-interval-seconds")?;
    Ok(AwsLogsPlan {
        create_group: options.flag("awslogs-create-group", false)?,
        group: options.required("awslogs-group")?,
        region: options.take("awslogs-region").unwrap_or_default(),
        stream,
        use_execution_role: logged.auth_strategy == Some("ExecutionRole"),
        begins_event,
        flush_after: Duration::from_secs(u64::from(flush.unwrap_or(AWSLOGS_FLUSH_SECONDS).max(1))),
    })
}

pub(super) fn json_file(
    options: &mut Options<'_>,
    logged: Logged<'_>,
) -> Result<JsonFilePlan, String> {
    let max_bytes = options.size("max-size")?;
    let max_files = options.number("max-file")?.unwrap_or(1);
    if max_files == 0 {
        return Err(options.bad("max-file", "0"));
    }
    if max_files > 1 && max_bytes.is_none() {
        return Err(format!(
            "container '{}': log option 'max-file' is for files of a 'max-size', which is missing",
            logged.container
        ));
    }
    if options.flag("compress", false)? {
        return Err(not_built("log option", "compress", Some(logged.container)));
    }
    Ok(JsonFilePlan {
        max_bytes,
        max_files,
        source: source(options, logged)?,
    })
}

pub(super) fn fluentd(
    options: &mut Options<'_>,
    logged: Logged<'_>,
) -> Result<FluentdPlan, String> {
    let address = options
        .take("fluentd-address")
        .unwrap_or_else(|| format!("localhost:{FLUENTD_PORT}"));
    let asynchronous = options.flag("fluentd-async", false)?;
    let connects_later = options.flag("fluentd-async-connect", false)?;
    let retry_wait = options.duration("fluentd-retry-wait", FLUENTD_RETRY_WAIT)?;
    Ok(FluentdPlan {
        address: options.address("fluentd-address", &address, Some(FLUENTD_PORT))?,
        sub_second_precision: options.flag("fluentd-sub-second-precision", false)?,
        asynchronous: asynchronous || connects_later,
        request_ack: options.flag("fluentd-request-ack", false)?,
        retry_wait,
        max_retries: options.number("fluentd-max-retries")?,
        source: source(options, logged)?,
    })
}

const FACILITIES: [(&str, u8); 20] = [
    ("kern", 0),
    ("user", 1),
    ("mail", 2),
    ("daemon", 3),
    ("auth", 4),
    ("syslog", 5),
    ("lpr", 6),
    ("news", 7),
    ("uucp", 8),
    ("cron", 9),
    ("authpriv", 10),
    ("ftp", 11),
    ("local0", 16),
    ("local1", 17),
    ("local2", 18),
    ("local3", 19),
    ("local4", 20),
    ("local5", 21),
    ("local6", 22),
    ("local7", 23),
];

pub(super) fn syslog(options: &mut Options<'_>, logged: Logged<'_>) -> Result<SyslogPlan, String> {
    let address = options.take("syslog-address");
    let facility = options
        .take("syslog-facility")
        .unwrap_or_else(|| "daemon".to_owned());
    let by_name = FACILITIES.iter().find(|(name, _)| *name == facility);
    let by_number = facility.parse().ok().filter(|number| *number < 24);
    let number = by_name.map(|(_, number)| *number).or(by_number);
    let number = number.ok_or_else(|| options.bad("syslog-facility", &facility))?;
    let format = match options.take("syslog-format").as_deref() {
        None | Some("") => None,
        Some("rfc3164") => Some(SyslogFormat::Rfc3164),
        Some("rfc5424") => Some(SyslogFormat::Rfc5424),
        Some("rfc5424micro") => Some(SyslogFormat::Rfc5424Micro),
        Some(other) => return Err(options.bad("syslog-format", other)),
    };
    Ok(SyslogPlan {
        facility: number,
        format: format.unwrap_or(match address {
            Some(_) => SyslogFormat::Rfc3164,
            None => SyslogFormat::Local,
        }),
        address: match &address {
            Some(address) => options.address("syslog-address", address, Some(SYSLOG_PORT))?,
            None => Address::UnixDatagram {
                path: "/dev/log".to_owned(),
            },
        },
        source: source(options, logged)?,
    })
}

pub(super) fn gelf(options: &mut Options<'_>, logged: Logged<'_>) -> Result<GelfPlan, String> {
    let text = options.required("gelf-address")?;
    let address = options.address("gelf-address", &text, None)?;
    let level = options
        .number("gelf-compression-level")?
        .unwrap_or(GELF_LEVEL);
    if level > 9 {
        return Err(options.bad("gelf-compression-level", &level.to_string()));
    }
    let compression = match (options.take("gelf-compression-type").as_deref(), &address) {
        (None, Address::Tcp { .. }) | (Some("none"), _) => GelfCompression::None,
        (None | Some("gzip"), Address::Udp { .. }) => GelfCompression::Gzip { level },
        (Some("zlib"), Address::Udp { .. }) => GelfCompression::Zlib { level },
        (Some(other), Address::Udp { .. }) => {
            return Err(options.bad("gelf-compression-type", other));
        }
        (Some(other), _) => {
            return Err(format!(
                "{}: compression is for UDP",
                options.bad("gelf-compression-type", other)
            ));
        }
        (None, _) => return Err(options.bad("gelf-address", &text)),
    };
    Ok(GelfPlan {
        address,
        compression,
        source: source(options, logged)?,
    })
}

pub(super) fn loki(options: &mut Options<'_>, logged: Logged<'_>) -> Result<LokiPlan, String> {
    if options.take("tag").is_some() {
        return Err(not_built("log option", "tag", Some(logged.container)));
    }
    let url = options.required("loki-url")?;
    let bad = || options.bad("loki-url", &url);
    let rest = match url.split_once("://") {
        Some(("http", rest)) => rest,
        Some(("https", _)) => {
            return Err(not_built(
                "log option 'loki-url' with",
                "https://",
                Some(logged.container),
            ));
        }
        _ => return Err(bad()),
    };
    let (authority, path) = rest
        .split_once('/')
        .map_or((rest, LOKI_PATH.to_owned()), |(authority, path)| {
            (authority, format!("/{path}"))
        });
    if authority.contains('@') {
        return Err(not_built(
            "log option 'loki-url' with",
            "a user's name",
            Some(logged.container),
        ));
    }
    let (host, port) = host_and_port(authority, Some(80)).ok_or_else(bad)?;
    let mut labels = BTreeMap::from([("container_name".to_owned(), logged.container.to_owned())]);
    if let Some(external) = options.take("loki-external-labels") {
        labels.clear();
        for pair in external.split(',').filter(|pair| !pair.is_empty()) {
            let Some((name, value)) = pair.split_once('=') else {
                return Err(options.bad("loki-external-labels", &external));
            };
            let value = template(value, logged).map_err(|why| {
                format!("{}: {why}", options.bad("loki-external-labels", &external))
            })?;
            labels.insert(name.trim().to_owned(), value);
        }
    }
    let source = source(options, logged)?;
    labels.extend(source.attributes);
    let retries = options.number("loki-retries")?.unwrap_or(LOKI_RETRIES);
    let batch_bytes = options.size("loki-batch-size")?.unwrap_or(LOKI_BATCH_BYTES);
    Ok(LokiPlan {
        host,
        port,
        path,
        labels,
        tenant: options.take("loki-tenant-id"),
        batch_bytes: usize::try_from(batch_bytes.min(LOKI_BATCH_BYTES)).unwrap_or(1 << 20),
        batch_wait: options.duration("loki-batch-wait", LOKI_BATCH_WAIT)?,
        max_retries: Some(retries).filter(|retries| *retries > 0),
        backoff: (
            options.duration("loki-min-backoff", LOKI_BACKOFF.0)?,
            options.duration("loki-max-backoff", LOKI_BACKOFF.1)?,
        ),
        timeout: options.duration("loki-timeout", LOKI_TIMEOUT)?,
    })
}

/// `tag`, `labels`, `labels-regex`, `env` and `env-regex`, which most drivers have.
fn source(options: &mut Options<'_>, logged: Logged<'_>) -> Result<LogSource, String> {
    let tag = options.take("tag");
    let tag = tag.as_deref().unwrap_or("{{.ID}}");
    let mut attributes = BTreeMap::new();
    for (names, expression, from) in [
        ("labels", "labels-regex", logged.labels),
        ("env", "env-regex", logged.environment),
    ] {
        if let Some(names) = options.take(names) {
            let named = names
                .split(',')
                .filter_map(|name| from.get_key_value(name.trim()));
            attributes.extend(named.map(|(name, value)| (name.clone(), value.clone())));
        }
        if let Some(text) = options.take(expression) {
            let matcher = Regex::new(&text)
                .map_err(|error| format!("{}: {error}", options.bad(expression, &text)))?;
            let matching = from.iter().filter(|(name, _)| matcher.is_match(name));
            attributes.extend(matching.map(|(name, value)| (name.clone(), value.clone())));
        }
    }
    Ok(LogSource {
        tag: template(tag, logged).map_err(|why| format!("{}: {why}", options.bad("tag", tag)))?,
        container_id: container_id(logged),
        container_name: logged.container.to_owned(),
        image: logged.image.to_owned(),
        command: logged.command.join(" "),
        attributes,
    })
}

/// Docker's id of a container; here it is drawn from the task's.
fn container_id(logged: Logged<'_>) -> String {
    format!("{}-{}", logged.task_id, logged.container)
}

/// The part of Go's templates that tags are made of: names in double braces.
fn template(text: &str, logged: Logged<'_>) -> Result<String, String> {
    let full_id = container_id(logged);
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        out.push_str(before);
        let (inside, behind) = after.split_once("}}").ok_or("'{{' has no '}}'")?;
        match inside.trim() {
            ".ID" => out.extend(full_id.chars().take(12)),
            ".FullID" => out.push_str(&full_id),
            ".Name" => out.push_str(logged.container),
            ".ImageName" | ".ImageID" | ".ImageFullID" => out.push_str(logged.image),
            ".DaemonName" => out.push_str("gantry"),
            other => return Err(format!("'{{{{{other}}}}}' is not known in it")),
        }
        rest = behind;
    }
    out.push_str(rest);
    Ok(out)
}
