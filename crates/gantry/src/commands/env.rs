//! `gantry env`: shell exports for the AWS tools.

use crate::cli::DataDirOption;
use crate::data_dir::DataDir;

/// Prints the exports on stdout.
#[expect(clippy::print_stdout, reason = "the exports are this command's result")]
pub fn run(options: &DataDirOption) -> anyhow::Result<()> {
    let credentials = DataDir::read_root_credentials(&options.data_dir)?;
    let exports = [
        ("AWS_ENDPOINT_URL", credentials.endpoint.as_str()),
        ("AWS_ACCESS_KEY_ID", &credentials.access_key_id),
        ("AWS_SECRET_ACCESS_KEY", &credentials.secret_access_key),
        ("AWS_DEFAULT_REGION", &credentials.region),
        ("AWS_REGION", &credentials.region),
        // Host prefixes such as `data-ecs.` do not resolve for an endpoint on localhost.
        ("AWS_DISABLE_HOST_PREFIX_INJECTION", "true"),
        // Without these, tools would ask the instance metadata service or use a profile's endpoint.
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ];
    for (name, value) in exports {
        println!("export {name}={}", quoted(value));
    }
    // A token of an earlier login would be sent along and refused.
    println!("unset AWS_SESSION_TOKEN AWS_PROFILE");
    Ok(())
}

/// A word for a POSIX shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_quote_cannot_end_the_word() {
        assert_eq!(super::quoted("a'b"), r"'a'\''b'");
    }
}
