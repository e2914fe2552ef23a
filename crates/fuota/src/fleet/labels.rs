//! Expressions over the labels of a device, such as `hall=2 and (floor=1 or floor=2)`.
//!
//! | form | is true where |
//! | --- | --- |
//! | `key` | the device has the label |
//! | `key=value`, `key!=value` | its value is this; is not this, or there is none |
//! | `key in (a, b)` | its value is one of these |
//! | `not X`, `X and Y`, `X or Y`, `(X)` | as one reads it; `not` binds closest, then `and` |
//!
//! A value is a word of letters, digits and `._:/-`, or a text in double quotes.

use std::{collections::BTreeMap, fmt};

/// The longest expression, in bytes.
const LONGEST: usize = 1024;
/// How deep parentheses and `not` may be nested: the reader calls itself for each.
const DEEPEST: usize = 32;

/// A parsed expression; two are equal where their texts are.
#[derive(Clone, Debug)]
pub struct Expression {
    text: String,
    root: Node,
}

#[derive(Clone, Debug)]
enum Node {
    Has(String),
    In(String, Vec<String>),
    Not(Box<Node>),
    All(Vec<Node>),
    Any(Vec<Node>),
}

impl Expression {
    /// Reads an expression.
    ///
    /// # Errors
    /// One sentence that says where it stops making sense.
    pub fn parse(text: &str) -> Result<Expression, String> {
        let text = text.trim();
        if text.len() > LONGEST {
            return Err(format!("the expression is longer than {LONGEST} bytes"));
        }
        let mut reader = Reader { rest: text, depth: 0 };
        let root = reader.any()?;
        reader.space();
        if !reader.rest.is_empty() {
            return Err(reader.wrong("`and`, `or` or the end"));
        }
        Ok(Expression { text: text.into(), root })
    }

    /// Whether it is true of a device with these labels.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.root.matches(labels)
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Expression {}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Node {
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        match self {
            Node::Has(key) => labels.contains_key(key),
            Node::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            Node::Not(node) => !node.matches(labels),
            Node::All(nodes) => nodes.iter().all(|node| node.matches(labels)),
            Node::Any(nodes) => nodes.iter().any(|node| node.matches(labels)),
        }
    }
}

struct Reader<'a> {
    rest: &'a str,
    depth: usize,
}

impl Reader<'_> {
    fn any(&mut self) -> Result<Node, String> {
        let mut nodes = vec![self.all()?];
        while self.word("or") {
            nodes.push(self.all()?);
        }
        Ok(if nodes.len() == 1 { nodes.remove(0) } else { Node::Any(nodes) })
    }

    fn all(&mut self) -> Result<Node, String> {
        let mut nodes = vec![self.one()?];
        while self.word("and") {
            nodes.push(self.one()?);
        }
        Ok(if nodes.len() == 1 { nodes.remove(0) } else { Node::All(nodes) })
    }

    fn one(&mut self) -> Result<Node, String> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(format!("the expression is nested deeper than {DEEPEST}"));
        }
        let node = if self.word("not") {
            Node::Not(Box::new(self.one()?))
        } else if self.sign("(") {
            let inner = self.any()?;
            self.expect(")")?;
            inner
        } else {
            self.condition()?
        };
        self.depth -= 1;
        Ok(node)
    }

    fn condition(&mut self) -> Result<Node, String> {
        let key = self.value("a label")?;
        if self.sign("!=") {
            let value = self.value("a value")?;
            Ok(Node::Not(Box::new(Node::In(key, vec![value]))))
        } else if self.sign("=") {
            Ok(Node::In(key, vec![self.value("a value")?]))
        } else if self.word("in") {
            self.expect("(")?;
            let mut values = vec![self.value("a value")?];
            while self.sign(",") {
                values.push(self.value("a value")?);
            }
            self.expect(")")?;
            Ok(Node::In(key, values))
        } else {
            Ok(Node::Has(key))
        }
    }

    fn value(&mut self, what: &str) -> Result<String, String> {
        self.space();
        if let Some(quoted) = self.rest.strip_prefix('"') {
            let end = quoted.find('"').ok_or_else(|| self.wrong("a closing quote"))?;
            self.rest = &quoted[end + 1..];
            return Ok(quoted[..end].into());
        }
        let end = self.word_end();
        let word = &self.rest[..end];
        if word.is_empty() || matches!(word, "and" | "or" | "not" | "in") {
            return Err(self.wrong(what));
        }
        self.rest = &self.rest[end..];
        Ok(word.into())
    }

    fn word(&mut self, word: &str) -> bool {
        self.space();
        let found = &self.rest[..self.word_end()] == word;
        if found {
            self.rest = &self.rest[word.len()..];
        }
        found
    }

    fn word_end(&self) -> usize {
        let belongs = |c: char| c.is_alphanumeric() || "._:/-".contains(c);
        self.rest.find(|c| !belongs(c)).unwrap_or(self.rest.len())
    }

    fn sign(&mut self, sign: &str) -> bool {
        self.space();
        match self.rest.strip_prefix(sign) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, sign: &str) -> Result<(), String> {
        if self.sign(sign) { Ok(()) } else { Err(self.wrong(&format!("`{sign}`"))) }
    }

    fn space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn wrong(&self, wanted: &str) -> String {
        let found: String = self.rest.chars().take(24).collect();
        match found.is_empty() {
            true => format!("the expression ends where {wanted} should stand"),
            false => format!("{wanted} should stand where {found:?} does"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn labels(text: &str) -> BTreeMap<String, String> {
        let pairs = text.split(' ').filter_map(|pair| pair.split_once('='));
        pairs.map(|(key, value)| (key.into(), value.into())).collect()
    }

    #[test]
    fn expressions_mean_what_they_say() {
        let device = labels("hall=2 floor=1 site=a/b canary=");
        for (text, expected) in [
            ("hall=2", true),
            ("hall = 3", false),
            ("hall!=3", true),
            ("missing!=3", true),
            ("canary", true),
            ("missing", false),
            ("not missing and hall", true),
            ("hall=3 or floor=1", true),
            ("hall=3 or floor=1 and missing", false),
            ("(hall=3 or floor=1) and not missing", true),
            ("floor in (1, 2)", true),
            ("floor in (3)", false),
            ("site=\"a/b\" and site=a/b", true),
            ("not not hall", true),
        ] {
            let expression = Expression::parse(text).expect(text);
            assert_eq!(expression.matches(&device), expected, "{text}");
            assert_eq!(expression.to_string(), text);
        }
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (text, why) in [
            ("", "ends where a label"),
            ("hall=", "ends where a value"),
            ("hall=2 floor", "should stand where \"floor\""),
            ("(hall", "`)`"),
            ("and", "a label"),
            ("hall in ()", "a value"),
            ("a=\"x", "closing quote"),
            ("a==b", "a value"),
            ("a&b", "`and`"),
        ] {
            let problem = Expression::parse(text).expect_err(text);
            assert!(problem.contains(why), "{text}: {problem}");
        }
        assert!(Expression::parse(&"(".repeat(1000)).expect_err("deep").contains("nested"));
        assert!(Expression::parse(&"not ".repeat(100)).expect_err("deep").contains("nested"));
        assert!(Expression::parse(&"a".repeat(2000)).expect_err("long").contains("longer"));
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[a-c=!(),\" ]{0,40}|\\PC{0,40}|((and|or|not|in|a|=|\\()( ?)){0,20}") {
            if let Ok(expression) = Expression::parse(&text) {
                expression.matches(&labels("a=b"));
            }
        }
    }
}
