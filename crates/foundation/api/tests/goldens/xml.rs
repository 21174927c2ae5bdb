//! Enough XML to compare two answers: elements, attributes, text and the five entities.

#[derive(Debug, Default, PartialEq)]
struct Element {
    name: String,
    attributes: Vec<(String, String)>,
    text: String,
    children: Vec<Element>,
}

/// Whether two answers say the same: order within an element of different names, white space
/// between elements, and metadata about the request do not count.
pub fn same(expected: &str, found: &str) -> Result<(), String> {
    let (mut wanted, mut got) = (parse(expected)?, parse(found)?);
    for side in [&mut wanted, &mut got] {
        side.children
            .retain(|child| child.name != "ResponseMetadata");
        // Which namespace an envelope has is the service's, not the protocol's.
        side.attributes.clear();
        settle(side);
    }
    if wanted == got {
        Ok(())
    } else {
        Err(format!("expected {wanted:?}\n   found {got:?}"))
    }
}

fn settle(element: &mut Element) {
    if !element.children.is_empty() || element.text.trim().is_empty() {
        element.text.clear();
    }
    element.children.iter_mut().for_each(settle);
    // The sort is stable, so elements of one name keep their order.
    element
        .children
        .sort_by(|left, right| left.name.cmp(&right.name));
    // The order of a map's entries means nothing.
    if element.children.iter().all(is_entry) {
        element.children.sort_by_key(|child| format!("{child:?}"));
    }
}

fn is_entry(element: &Element) -> bool {
    let names: Vec<&str> = element
        .children
        .iter()
        .map(|child| child.name.as_str())
        .collect();
    matches!(
        names[..],
        ["key", "value"] | ["K", "V"] | ["Attribute", "Setting"]
    )
}

fn parse(text: &str) -> Result<Element, String> {
    let mut open = vec![Element::default()];
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        if let Some(top) = open.last_mut() {
            top.text.push_str(&unescape(&rest[..at]));
        }
        let end = rest[at..].find('>').ok_or("a tag that does not end")? + at;
        let tag = &rest[at + 1..end];
        rest = &rest[end + 1..];
        if tag.starts_with('?') || tag.starts_with('!') {
            continue;
        }
        if let Some(name) = tag.strip_prefix('/') {
            close(&mut open, name.trim())?;
            continue;
        }
        let (tag, is_empty) = match tag.strip_suffix('/') {
            Some(tag) => (tag, true),
            None => (tag, false),
        };
        let (name, attributes) = tag
            .trim()
            .split_once(char::is_whitespace)
            .unwrap_or((tag.trim(), ""));
        let attributes = attributes
            .split_whitespace()
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), unescape(value.trim_matches(['"', '\'']))))
            .collect();
        open.push(Element {
            name: name.to_owned(),
            attributes,
            ..Element::default()
        });
        if is_empty {
            close(&mut open, name)?;
        }
    }
    let root = open.pop().ok_or("nothing left")?;
    if !open.is_empty() {
        return Err(format!("{} is not closed", root.name));
    }
    root.children
        .into_iter()
        .next()
        .ok_or_else(|| "no root".to_owned())
}

fn close(open: &mut Vec<Element>, name: &str) -> Result<(), String> {
    let done = open.pop().ok_or("closed too often")?;
    if done.name != name {
        return Err(format!("{} is closed by {name}", done.name));
    }
    open.last_mut()
        .ok_or("nothing is open")?
        .children
        .push(done);
    Ok(())
}

fn unescape(text: &str) -> String {
    text.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&apos;", "'")
        .replace("&#xD;", "\r")
        .replace("&#xA;", "\n")
        .replace("&amp;", "&")
}
