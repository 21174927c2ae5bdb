//! Programs that ask with boto3, and fail unless they came to their end.

use crate::installation::Installation;

/// `refused(call, code, words…, arguments…)`: the call must be answered with this error.
const SHARED: &str = r#"
import boto3, botocore
def refused(call, code, *words, **arguments):
    try:
        call(**arguments)
    except botocore.exceptions.ClientError as error:
        seen = error.response["Error"]
        assert seen["Code"] == code, (seen, code)
        for word in words:
            assert word in seen["Message"], (seen, word)
    else:
        raise SystemExit("accepted: %r" % (arguments,))
INVALID = "InvalidParameterException"
"#;

/// Runs `program` after what its file has in common, `prelude`.
pub fn python(gantry: &Installation, prelude: &str, program: &str) {
    let printed = gantry.python(&format!(
        "{SHARED}{prelude}\n{program}\nprint('all of it')\n"
    ));
    assert!(printed.contains("all of it"), "{printed}");
}
