//! Tables as text, as RFC 4180 has them: fields in quotes may hold commas, line breaks and
//! doubled quotes. Empty lines are left out.

/// The rows of a text, each with the line that it begins on.
///
/// # Errors
/// One sentence with the line: quotes in the middle of a field, or a quote that never ends. The
/// sentence shows nothing of the text, which may hold secrets.
pub fn parse(text: &str) -> Result<Vec<(usize, Vec<String>)>, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n");
    let mut rows = Vec::new();
    let mut characters = text.chars().peekable();
    let mut line = 1;
    while characters.peek().is_some() {
        let start = line;
        let mut row = Vec::new();
        loop {
            let mut field = String::new();
            if characters.next_if_eq(&'"').is_some() {
                loop {
                    match characters.next() {
                        Some('"') if characters.next_if_eq(&'"').is_some() => field.push('"'),
                        Some('"') => break,
                        Some(character) => {
                            line += usize::from(character == '\n');
                            field.push(character);
                        }
                        None => return Err(format!("line {start}: a quote is not closed")),
                    }
                }
            } else {
                while let Some(character) =
                    characters.next_if(|character| !matches!(character, ',' | '\n' | '"'))
                {
                    field.push(character);
                }
            }
            row.push(field);
            match characters.next() {
                Some(',') => {}
                Some('\n') | None => break,
                Some(_) => return Err(format!("line {line}: a quote stands inside a field")),
            }
        }
        line += 1;
        if row != [""] {
            rows.push((start, row));
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str) -> Vec<(usize, Vec<String>)> {
        parse(text).unwrap()
    }

    #[test]
    fn reads_what_spreadsheets_write() {
        let row = |line, fields: &[&str]| {
            (line, fields.iter().map(|field| (*field).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(
            rows("\u{feff}id,model\r\na,\r\n\r\n\"b\",\"x, \"\"y\"\"\nz\"\nc,m"),
            [
                row(1, &["id", "model"]),
                row(2, &["a", ""]),
                row(4, &["b", "x, \"y\"\nz"]),
                row(6, &["c", "m"])
            ]
        );
        assert!(rows("").is_empty() && rows("\n\n").is_empty());
        assert_eq!(rows("a,"), [row(1, &["a", ""])]);
    }

    #[test]
    fn names_the_line_and_shows_nothing_of_it() {
        for (text, line) in
            [("a\nsecret\"x", "line 2"), ("a\n\"secret", "line 2"), ("\"a\"b", "line 1")]
        {
            let error = parse(text).unwrap_err();
            assert!(error.contains(line) && !error.contains("secret"), "{error}");
        }
    }
}
