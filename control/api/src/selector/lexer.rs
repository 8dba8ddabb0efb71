//! The tokens of a label selector in query syntax; only the parser in `labels` uses them.

/// One token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// The end of the text.
    End,
    /// `)`
    Close,
    /// `,`
    Comma,
    /// `!`
    Not,
    /// `==`
    DoubleEquals,
    /// `=`
    Equals,
    /// `>`
    Greater,
    /// `<`
    Less,
    /// `!=`
    NotEquals,
    /// `(`
    Open,
    /// The word `in`, which may also be a key or a value.
    In,
    /// The word `notin`, which may also be a key or a value.
    NotIn,
    /// Any other word.
    Word(String),
}

impl Token {
    /// The token as it was written.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::End => "",
            Self::Close => ")",
            Self::Comma => ",",
            Self::Not => "!",
            Self::DoubleEquals => "==",
            Self::Equals => "=",
            Self::Greater => ">",
            Self::Less => "<",
            Self::NotEquals => "!=",
            Self::Open => "(",
            Self::In => "in",
            Self::NotIn => "notin",
            Self::Word(word) => word,
        }
    }

    /// The word that this token is where a key or a value is expected.
    pub(super) fn word(&self) -> Option<&str> {
        match self {
            Self::In | Self::NotIn | Self::Word(_) => Some(self.text()),
            _ => None,
        }
    }
}

/// The tokens of a text, the last of which is [`Token::End`].
pub(super) fn tokens(text: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\r', '\n']);
        let (token, length) = next(rest);
        let end = token == Token::End;
        found.push(token);
        if end {
            return found;
        }
        rest = rest.get(length..).unwrap_or_default();
    }
}

/// The first token of a text without leading blanks, and its length.
fn next(text: &str) -> (Token, usize) {
    let symbols = [
        ("!=", Token::NotEquals),
        ("==", Token::DoubleEquals),
        ("=", Token::Equals),
        ("!", Token::Not),
        ("(", Token::Open),
        (")", Token::Close),
        (",", Token::Comma),
        (">", Token::Greater),
        ("<", Token::Less),
    ];
    for (symbol, token) in symbols {
        if text.starts_with(symbol) {
            return (token, symbol.len());
        }
    }
    let special = |c| matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<' | ' ' | '\t' | '\r' | '\n');
    let word = text.split(special).next().unwrap_or_default();
    let token = match word {
        "" => Token::End,
        "in" => Token::In,
        "notin" => Token::NotIn,
        _ => Token::Word(word.to_owned()),
    };
    (token, word.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_fall_into_tokens() {
        let written: Vec<String> =
            tokens(" a in\t(b,notin)!=c==d=!<> e/f").iter().map(|t| t.text().to_owned()).collect();
        assert_eq!(
            written,
            ["a", "in", "(", "b", ",", "notin", ")", "!=", "c", "==", "d", "=", "!", "<", ">", "e/f", ""]
        );
    }
}
