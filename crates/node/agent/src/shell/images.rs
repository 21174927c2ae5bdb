//! What a node is told about images, and the loop that removes those that nobody uses.
//!
//! What always holds: settings have the names and the defaults of the Amazon ECS agent where it has them, and one
//! that cannot be read is an error, never a default.
//! What it leaves to others: which images are used, and their removal (`gantry_runtime`).

use std::time::Duration;

use gantry_env::Env;
use gantry_runtime::{CollectionPolicy, ImageStoreOptions, Runtime};
use tracing::{info, warn};

const DISABLED: &str = "ECS_DISABLE_IMAGE_CLEANUP";
const INTERVAL: &str = "ECS_IMAGE_CLEANUP_INTERVAL";
const AGE: &str = "ECS_IMAGE_MINIMUM_CLEANUP_AGE";
const NUMBER: &str = "ECS_NUM_IMAGES_DELETE_PER_CYCLE";
const INSECURE: &str = "GANTRY_INSECURE_REGISTRIES";
const AUTHORITIES: &str = "GANTRY_REGISTRY_AUTHORITIES";

/// How often it is looked whether the disk is nearly full, between two cycles.
const LOOK_EVERY: Duration = Duration::from_secs(60);

#[derive(Debug, Clone)]
pub(super) struct ImageSettings {
    /// `None`: images stay for ever.
    pub collection: Option<CollectionPolicy>,
    pub store: ImageStoreOptions,
}

impl ImageSettings {
    /// `variable` is the process's environment.
    pub fn from(variable: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let said = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let duration = |name: &str, default: Duration| match said(name) {
            Some(text) => parse_duration(&text)
                .ok_or_else(|| format!("{name}={text}: a time like 30m or 1h is expected")),
            None => Ok(default),
        };
        let default = CollectionPolicy::default();
        let policy = CollectionPolicy {
            interval: duration(INTERVAL, default.interval)?,
            age_min: duration(AGE, default.age_min)?,
            images_per_cycle: match said(NUMBER) {
                Some(text) => text
                    .trim()
                    .parse()
                    .map_err(|_| format!("{NUMBER}={text}: a number is expected"))?,
                None => default.images_per_cycle,
            },
            ..default
        };
        let disabled = match said(DISABLED).as_deref().map(str::trim) {
            Some("true") => true,
            Some("false") | None => false,
            Some(other) => return Err(format!("{DISABLED}={other}: true or false is expected")),
        };
        let authorities_pem = match said(AUTHORITIES) {
            Some(path) => std::fs::read(path.trim())
                .map_err(|error| format!("{AUTHORITIES}={path}: {error}"))?,
            None => Vec::new(),
        };
        let insecure = said(INSECURE).unwrap_or_default();
        let insecure = insecure.split(',').map(str::trim).filter(|r| !r.is_empty());
        Ok(Self {
            collection: (!disabled).then_some(policy),
            store: ImageStoreOptions {
                authorities_pem,
                insecure_registries: insecure.map(str::to_owned).collect(),
                ..ImageStoreOptions::default()
            },
        })
    }
}

/// `90s`, `30m`, `1h`, and sums of them as Go writes them: `1h30m`.
fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        let unit_s = match &rest[..letters] {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            _ => return None,
        };
        total = total.checked_add(Duration::from_secs(number.checked_mul(unit_s)?))?;
        rest = &rest[letters..];
    }
    (total > Duration::ZERO).then_some(total)
}

/// Removes images for as long as the node runs: in cycles, and in between when the disk is nearly full.
pub(super) async fn collect_for_ever(runtime: Runtime, policy: CollectionPolicy, env: Env) {
    let mut last = env.monotonic();
    loop {
        env.sleep(LOOK_EVERY.min(policy.interval)).await;
        let is_due = env.monotonic().saturating_sub(last) >= policy.interval;
        let is_low = match runtime.is_low_on_space_for_images(&policy) {
            Ok(is_low) => is_low,
            Err(error) => {
                warn!(%error, "it is not known whether the disk is nearly full");
                false
            }
        };
        if !is_due && !is_low {
            continue;
        }
        last = env.monotonic();
        match runtime.collect_images(&policy).await {
            Ok(collected) if collected.images.is_empty() && collected.layers == 0 => {}
            Ok(collected) => {
                info!(images = ?collected.images, layers = collected.layers, "removed images that no task uses");
            }
            Err(error) => warn!(%error, "images could not be removed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(variables: &[(&str, &str)]) -> Result<ImageSettings, String> {
        ImageSettings::from(|name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn settings_are_those_of_the_amazon_agent() {
        let policy = from(&[]).unwrap().collection.unwrap();
        assert_eq!(policy, CollectionPolicy::default());
        assert_eq!(
            (policy.interval, policy.age_min, policy.images_per_cycle),
            (Duration::from_secs(1800), Duration::from_secs(3600), 5)
        );
        let said = from(&[
            (INTERVAL, "10m"),
            (AGE, "1h30m"),
            (NUMBER, "7"),
            (INSECURE, "10.0.0.1:5000, registry.lan"),
        ])
        .unwrap();
        let policy = said.collection.unwrap();
        assert_eq!(
            (policy.interval, policy.age_min, policy.images_per_cycle),
            (Duration::from_secs(600), Duration::from_secs(5400), 7)
        );
        assert_eq!(
            said.store.insecure_registries,
            ["10.0.0.1:5000", "registry.lan"]
        );
        assert_eq!(from(&[(DISABLED, "true")]).unwrap().collection, None);
    }

    #[test]
    fn what_cannot_be_read_is_an_error_that_names_it() {
        for (name, value) in [
            (INTERVAL, "soon"),
            (AGE, "5"),
            (AGE, "0m"),
            (NUMBER, "-1"),
            (DISABLED, "yes"),
            (AUTHORITIES, "/no/such/file"),
        ] {
            let error = from(&[(name, value)]).unwrap_err();
            assert!(error.contains(name), "{error}");
        }
    }
}
