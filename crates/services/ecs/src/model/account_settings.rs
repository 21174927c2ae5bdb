//! Account settings: which values each may have, and what holds where nobody set one.
//!
//! What always holds: a principal's own setting wins over the account's default, and that over
//! AWS's. The root user's own setting is the account's default.

use gantry_api::ecs::{EcsError, SettingName};

use super::refusal::invalid;

/// One account setting, as AWS has it.
pub struct AccountSetting {
    pub name: SettingName,
    /// What holds where nobody set it.
    pub default: &'static str,
    pub values: &'static [&'static str],
    /// AWS's own: it is shown and cannot be set.
    pub aws_managed: bool,
}

const ON_OFF: &[&str] = &["on", "off"];
const ENABLED_DISABLED: &[&str] = &["enabled", "disabled"];

/// Every setting of the model, in the order in which they are listed.
pub fn all() -> [AccountSetting; 11] {
    let setting = |name, default, values| AccountSetting {
        name,
        default,
        values,
        aws_managed: false,
    };
    [
        setting(SettingName::AwsvpcTrunking, "disabled", ENABLED_DISABLED),
        setting(
            SettingName::ContainerInsights,
            "disabled",
            &["enhanced", "enabled", "disabled"],
        ),
        setting(
            SettingName::ContainerInstanceLongArnFormat,
            "enabled",
            ENABLED_DISABLED,
        ),
        setting(
            SettingName::DefaultLogDriverMode,
            "non-blocking",
            &["blocking", "non-blocking"],
        ),
        setting(
            SettingName::FargateEventWindows,
            "disabled",
            ENABLED_DISABLED,
        ),
        setting(SettingName::FargateFipsMode, "disabled", ENABLED_DISABLED),
        setting(
            SettingName::FargateTaskRetirementWaitPeriod,
            "7",
            &["0", "7", "14"],
        ),
        AccountSetting {
            aws_managed: true,
            ..setting(SettingName::GuardDutyActivate, "off", ON_OFF)
        },
        setting(
            SettingName::ServiceLongArnFormat,
            "enabled",
            ENABLED_DISABLED,
        ),
        setting(SettingName::TagResourceAuthorization, "on", ON_OFF),
        setting(SettingName::TaskLongArnFormat, "enabled", ENABLED_DISABLED),
    ]
}

/// The setting of that name.
pub fn named(name: &SettingName) -> Result<AccountSetting, EcsError> {
    all()
        .into_iter()
        .find(|setting| setting.name == *name)
        .ok_or_else(|| invalid(format!("Unknown account setting {name}.")))
}

impl AccountSetting {
    /// Whether somebody may set this value.
    pub fn validate(&self, value: &str) -> Result<(), EcsError> {
        if self.aws_managed {
            return Err(invalid(format!(
                "The account setting {} is managed by AWS and cannot be changed.",
                self.name
            )));
        }
        if !self.values.contains(&value) {
            return Err(invalid(format!(
                "Invalid value '{value}' for account setting {}. Valid values are {}.",
                self.name,
                self.values.join(", ")
            )));
        }
        let is_long_arn = matches!(
            self.name,
            SettingName::ServiceLongArnFormat
                | SettingName::TaskLongArnFormat
                | SettingName::ContainerInstanceLongArnFormat
        );
        if is_long_arn && value != "enabled" {
            return Err(invalid(format!(
                "The account setting {} cannot be disabled: every ARN has the long format.",
                self.name
            )));
        }
        Ok(())
    }
}
