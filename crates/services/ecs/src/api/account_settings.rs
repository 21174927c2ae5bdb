//! PutAccountSetting, PutAccountSettingDefault, DeleteAccountSetting, ListAccountSettings.

use gantry_api::RequestContext;
use gantry_api::ecs::{
    DeleteAccountSettingRequest, DeleteAccountSettingResponse, EcsError,
    ListAccountSettingsRequest, ListAccountSettingsResponse, PutAccountSettingDefaultRequest,
    PutAccountSettingDefaultResponse, PutAccountSettingRequest, PutAccountSettingResponse, Setting,
    SettingName, SettingType,
};
use gantry_arn::Arn;
use gantry_store::Transaction;

use super::lookup::Rows;
use crate::model::account_settings::{self, AccountSetting};
use crate::model::page::{PageRequest, page};
use crate::model::reference::Scope;
use crate::model::refusal::invalid;
use crate::service::EcsService;
use crate::tables::{AccountSettingRow, account_setting_name};

const PAGE_MAX: usize = 10;

pub(super) async fn put_account_setting(
    service: &EcsService,
    ctx: &RequestContext,
    input: PutAccountSettingRequest,
) -> Result<PutAccountSettingResponse, EcsError> {
    let principal = principal(ctx, input.principal_arn.as_deref())?;
    let setting = put(service, ctx, &principal, &input.name, &input.value).await?;
    Ok(PutAccountSettingResponse {
        setting: Some(setting),
    })
}

pub(super) async fn put_account_setting_default(
    service: &EcsService,
    ctx: &RequestContext,
    input: PutAccountSettingDefaultRequest,
) -> Result<PutAccountSettingDefaultResponse, EcsError> {
    let root = root(ctx);
    let setting = put(service, ctx, &root, &input.name, &input.value).await?;
    Ok(PutAccountSettingDefaultResponse {
        setting: Some(setting),
    })
}

async fn put(
    service: &EcsService,
    ctx: &RequestContext,
    principal: &str,
    name: &SettingName,
    value: &str,
) -> Result<Setting, EcsError> {
    let scope = Scope::of(ctx);
    let setting = account_settings::named(name)?;
    setting.validate(value)?;
    let row = AccountSettingRow {
        value: value.to_owned(),
    };
    let row_name = account_setting_name(principal, name.as_str());
    service
        .transact(|_| {
            let mut transaction = Transaction::new();
            let (account, region) = (&scope.account, &scope.region);
            // Whoever sets it last is right, so nothing is expected of the row.
            transaction.write::<AccountSettingRow>(account, region, &row_name, &row);
            Ok((transaction, ()))
        })
        .await?;
    Ok(shown(&setting, value.to_owned(), principal))
}

pub(super) async fn delete_account_setting(
    service: &EcsService,
    ctx: &RequestContext,
    input: DeleteAccountSettingRequest,
) -> Result<DeleteAccountSettingResponse, EcsError> {
    let scope = Scope::of(ctx);
    let principal = principal(ctx, input.principal_arn.as_deref())?;
    let setting = account_settings::named(&input.name)?;
    let name = account_setting_name(&principal, input.name.as_str());
    service
        .transact(|snapshot| {
            let mut transaction = Transaction::new();
            if Rows::new(snapshot, &scope)
                .read::<AccountSettingRow>(&name)
                .is_some()
            {
                let (account, region) = (&scope.account, &scope.region);
                transaction.remove::<AccountSettingRow>(account, region, &name);
            }
            Ok((transaction, ()))
        })
        .await?;
    let snapshot = service.snapshot();
    let value = effective(&Rows::new(&snapshot, &scope), ctx, &principal, &setting);
    Ok(DeleteAccountSettingResponse {
        setting: Some(shown(&setting, value, &principal)),
    })
}

pub(super) async fn list_account_settings(
    service: &EcsService,
    ctx: &RequestContext,
    input: ListAccountSettingsRequest,
) -> Result<ListAccountSettingsResponse, EcsError> {
    let scope = Scope::of(ctx);
    let principal = principal(ctx, input.principal_arn.as_deref())?;
    let value = input.value.as_deref().filter(|value| !value.is_empty());
    if value.is_some() && input.name.is_none() {
        return Err(invalid(
            "A setting name must be specified when a value is specified.",
        ));
    }
    let only_effective = input.effective_settings == Some(true);
    let snapshot = service.snapshot();
    let rows = Rows::new(&snapshot, &scope);
    let listed = account_settings::all().into_iter().filter_map(|setting| {
        if input
            .name
            .as_ref()
            .is_some_and(|name| *name != setting.name)
        {
            return None;
        }
        let current = if only_effective {
            effective(&rows, ctx, &principal, &setting)
        } else {
            own(&rows, &principal, &setting)?
        };
        if value.is_some_and(|value| value != current) {
            return None;
        }
        let cursor = setting.name.as_str().to_owned();
        Some((cursor, shown(&setting, current, &principal)))
    });
    let (settings, next_token) = page(
        &service.page_key,
        &format!(
            "settings {} {} {principal} {:?} {value:?} {only_effective}",
            scope.account, scope.region, input.name
        ),
        PageRequest {
            next_token: input.next_token.as_deref(),
            max_results: input.max_results.filter(|n| *n != 0),
            limit: PAGE_MAX,
        },
        listed,
    )?;
    Ok(ListAccountSettingsResponse {
        settings: Some(settings),
        next_token,
    })
}

/// What holds for the caller: his own setting, or the account's, or AWS's.
pub(super) fn effective_for_caller(
    rows: &Rows<'_>,
    ctx: &RequestContext,
    name: &SettingName,
) -> Result<String, EcsError> {
    let setting = account_settings::named(name)?;
    let caller = principal(ctx, None)?;
    Ok(effective(rows, ctx, &caller, &setting))
}

fn effective(
    rows: &Rows<'_>,
    ctx: &RequestContext,
    principal: &str,
    setting: &AccountSetting,
) -> String {
    own(rows, principal, setting)
        .or_else(|| own(rows, &root(ctx), setting))
        .unwrap_or_else(|| setting.default.to_owned())
}

fn own(rows: &Rows<'_>, principal: &str, setting: &AccountSetting) -> Option<String> {
    let name = account_setting_name(principal, setting.name.as_str());
    rows.read::<AccountSettingRow>(&name)
        .map(|row| row.value.clone())
}

fn root(ctx: &RequestContext) -> String {
    Arn::global("iam", &ctx.account, "root").to_string()
}

/// Whose setting is meant: a user, a role or the root user of the caller's account. The caller's
/// own where none is named; a session of a role sets for the role.
fn principal(ctx: &RequestContext, given: Option<&str>) -> Result<String, EcsError> {
    let Some(text) = given.filter(|text| !text.is_empty()) else {
        return Ok(match ctx.principal.arn.resource.split_once('/') {
            Some(("assumed-role", session)) => {
                let role = session.split('/').next().unwrap_or_default();
                Arn::global("iam", &ctx.account, format!("role/{role}")).to_string()
            }
            _ => ctx.principal.arn.to_string(),
        });
    };
    let arn: Option<Arn> = text.parse().ok();
    let own = arn.filter(|arn| {
        let kind = arn.resource.split('/').next().unwrap_or_default();
        arn.service == "iam"
            && arn.account == ctx.account.as_str()
            && matches!(kind, "root" | "user" | "role")
    });
    match own {
        Some(arn) => Ok(arn.to_string()),
        None => Err(invalid(format!(
            "Invalid principal ARN '{text}': it must be the ARN of a user, a role or the root user of this account."
        ))),
    }
}

fn shown(setting: &AccountSetting, value: String, principal: &str) -> Setting {
    Setting {
        name: Some(setting.name.clone()),
        value: Some(value),
        principal_arn: Some(principal.to_owned()),
        r#type: Some(match setting.aws_managed {
            true => SettingType::AwsManaged,
            false => SettingType::User,
        }),
    }
}
