//! Who a container's process runs as: `user`, `uid`, `user:group`, `uid:gid`, looked up in the image's own files.
//!
//! What always holds: the image's files are opened inside its root, so no link of an image leads to the
//! host's users. A name that the image does not know is an error, a number need not be known.

use std::fs::File;
use std::io::Read;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use crate::error::{ErrorKind, RuntimeError};

/// Longer passwd and group files are not read.
const FILE_BYTES_MAX: u64 = 4 << 20;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct User {
    pub uid: u32,
    pub gid: u32,
    pub additional_gids: Vec<u32>,
    /// From passwd; `/` where the user is not in it.
    pub home: String,
}

/// Resolves what a task definition or an image says. Empty is root.
pub(super) fn resolve(root: &File, wanted: &str) -> Result<User, RuntimeError> {
    let passwd = read_inside(root, "etc/passwd");
    let group = read_inside(root, "etc/group");
    resolve_in(&passwd, &group, wanted)
        .map_err(|message| RuntimeError::new(ErrorKind::CannotStartContainer, message))
}

pub(crate) fn resolve_in(passwd: &str, group: &str, wanted: &str) -> Result<User, String> {
    let (name, group_name) = match wanted.split_once(':') {
        Some((name, group)) => (name, Some(group).filter(|group| !group.is_empty())),
        None => (wanted, None),
    };
    let name = if name.is_empty() { "0" } else { name };
    let number = name.parse::<u32>().ok();
    // As in Docker, a number is always the number, also where somebody has it for a name.
    let entry = passwd.lines().map(fields).find(|f| {
        f.len() >= 6
            && match number {
                Some(_) => f[2].parse().ok() == number,
                None => f[0] == name,
            }
    });
    let (uid, mut gid, home, login) = match &entry {
        Some(f) => {
            let uid = f[2]
                .parse()
                .map_err(|_| format!("the image's /etc/passwd has no number for {name}"))?;
            (uid, f[3].parse().unwrap_or(0), f[5].to_owned(), Some(f[0]))
        }
        None => {
            let uid = number.ok_or_else(|| {
                format!("unable to find user {name}: no matching entries in passwd file: unknown")
            })?;
            (uid, 0, "/".to_owned(), None)
        }
    };
    let mut additional_gids = Vec::new();
    match group_name {
        Some(wanted) => {
            gid = match wanted.parse() {
                Ok(gid) => gid,
                Err(_) => group
                    .lines()
                    .map(fields)
                    .find(|f| f.len() >= 3 && f[0] == wanted)
                    .and_then(|f| f[2].parse().ok())
                    .ok_or_else(|| {
                        format!("unable to find group {wanted}: no matching entries in group file: unknown")
                    })?,
            };
        }
        // As in Docker, the user's further groups count only where no group was asked for.
        None => {
            if let Some(login) = login {
                additional_gids = group
                    .lines()
                    .map(fields)
                    .filter(|f| f.len() >= 4 && f[3].split(',').any(|member| member == login))
                    .filter_map(|f| f[2].parse().ok())
                    .filter(|other| *other != gid)
                    .collect();
            }
        }
    }
    Ok(User {
        uid,
        gid,
        additional_gids,
        home,
    })
}

fn fields(line: &str) -> Vec<&str> {
    line.trim_end().split(':').collect()
}

/// A file of the image, as text; empty where there is none.
fn read_inside(root: &File, path: &str) -> String {
    let opened = openat2(
        root,
        path,
        OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    );
    let mut bytes = Vec::new();
    if let Ok(file) = opened {
        // A file that cannot be read knows nobody.
        let _ = File::from(file)
            .take(FILE_BYTES_MAX)
            .read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nstaff:x:50:app,other\napp:x:1001:app\n";

    #[test]
    fn names_and_numbers_are_looked_up() {
        let of = |wanted| resolve_in(PASSWD, GROUP, wanted);
        assert_eq!(
            of("").unwrap(),
            User {
                uid: 0,
                gid: 0,
                additional_gids: vec![],
                home: "/root".into()
            }
        );
        let app = User {
            uid: 1000,
            gid: 1001,
            additional_gids: vec![50],
            home: "/home/app".into(),
        };
        assert_eq!(of("app").unwrap(), app);
        assert_eq!(of("1000").unwrap(), app);
        assert_eq!(of("app:staff").unwrap().gid, 50);
        assert!(of("app:staff").unwrap().additional_gids.is_empty());
        assert_eq!(
            of("7:8").unwrap(),
            User {
                uid: 7,
                gid: 8,
                additional_gids: vec![],
                home: "/".into()
            }
        );
        assert!(
            of("nobody")
                .unwrap_err()
                .contains("unable to find user nobody")
        );
        assert!(
            of("app:none")
                .unwrap_err()
                .contains("unable to find group none")
        );
        let named_by_a_number = |wanted: &str| {
            let passwd = "000:x:1000:1000::/home/numbers:/bin/sh\n";
            resolve_in(passwd, "", wanted).map(|user| user.uid)
        };
        assert_eq!(named_by_a_number("000"), Ok(0));
        assert_eq!(named_by_a_number("1000"), Ok(1000));
    }
}
