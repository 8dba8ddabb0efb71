//! The parser of label selectors in query syntax; only `labels` calls it.

use super::lexer::{Token, tokens};
use super::requirement::{Operator, Requirement, invalid_key};
use crate::field::FieldPath;

/// The requirements in a text, in the order in which they stand there.
pub(super) fn parse(text: &str) -> Result<Vec<Requirement>, String> {
    Parser { tokens: tokens(text), position: 0 }.parse()
}

struct Parser {
    tokens: Vec<Token>,
    position: usize,
}

impl Parser {
    fn peek(&self) -> Token {
        self.tokens.get(self.position).cloned().unwrap_or(Token::End)
    }

    fn take(&mut self) -> Token {
        let token = self.peek();
        self.position += 1;
        token
    }

    fn parse(mut self) -> Result<Vec<Requirement>, String> {
        let mut requirements = Vec::new();
        loop {
            let token = self.peek();
            if token == Token::End {
                return Ok(requirements);
            }
            if token.word().is_none() && token != Token::Not {
                return Err(format!("found '{}', expected: !, identifier, or 'end of string'", token.text()));
            }
            let requirement = self.requirement().map_err(|e| format!("unable to parse requirement: {e}"))?;
            requirements.push(requirement);
            match self.take() {
                Token::End => return Ok(requirements),
                Token::Comma => {
                    let next = self.peek();
                    if next.word().is_none() && next != Token::Not {
                        return Err(format!("found '{}', expected: identifier after ','", next.text()));
                    }
                }
                other => return Err(format!("found '{}', expected: ',' or 'end of string'", other.text())),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let mut token = self.take();
        let negated = token == Token::Not;
        if negated {
            token = self.take();
        }
        let Some(key) = token.word() else {
            return Err(format!("found '{}', expected: identifier", token.text()));
        };
        if let Some(error) = invalid_key(key, &FieldPath::root()) {
            return Err(error.to_string());
        }
        if negated {
            return Requirement::new(key, Operator::DoesNotExist, Vec::new());
        }
        if matches!(self.peek(), Token::End | Token::Comma) {
            return Requirement::new(key, Operator::Exists, Vec::new());
        }
        let operator = self.operator()?;
        let mut values = match operator {
            Operator::In | Operator::NotIn => self.values()?,
            _ => vec![self.exact_value()?],
        };
        values.sort();
        values.dedup();
        Requirement::new(key, operator, values)
    }

    fn operator(&mut self) -> Result<Operator, String> {
        Ok(match self.take() {
            Token::In => Operator::In,
            Token::NotIn => Operator::NotIn,
            Token::Equals => Operator::Equals,
            Token::DoubleEquals => Operator::DoubleEquals,
            Token::NotEquals => Operator::NotEquals,
            Token::Greater => Operator::GreaterThan,
            Token::Less => Operator::LessThan,
            other => {
                let known = Operator::BINARY.map(Operator::as_str).join(", ");
                return Err(format!("found '{}', expected: {known}", other.text()));
            }
        })
    }

    /// The value after `=` and its like; nothing there means the empty value.
    fn exact_value(&mut self) -> Result<String, String> {
        if matches!(self.peek(), Token::End | Token::Comma) {
            return Ok(String::new());
        }
        let token = self.take();
        token
            .word()
            .map(str::to_owned)
            .ok_or_else(|| format!("found '{}', expected: identifier", token.text()))
    }

    /// The values in parentheses, among which empty ones count.
    fn values(&mut self) -> Result<Vec<String>, String> {
        let open = self.take();
        if open != Token::Open {
            return Err(format!("found '{}' expected: '('", open.text()));
        }
        let first = self.peek();
        if first == Token::Close {
            self.take();
            return Ok(vec![String::new()]);
        }
        if first.word().is_none() && first != Token::Comma {
            return Err(format!("found '{}', expected: ',', ')' or identifier", first.text()));
        }
        let mut values = Vec::new();
        loop {
            let token = self.take();
            let after = self.peek();
            match (token.word(), &token, &after) {
                (Some(word), _, Token::Comma) => values.push(word.to_owned()),
                (Some(word), _, Token::Close) => {
                    values.push(word.to_owned());
                    break;
                }
                (Some(_), ..) => return Err(format!("found '{}', expected: ',' or ')'", after.text())),
                (None, Token::Comma, _) => {
                    if values.is_empty() || matches!(after, Token::Comma | Token::Close) {
                        values.push(String::new());
                    }
                    if after == Token::Close {
                        break;
                    }
                }
                (None, ..) => {
                    return Err(format!("found '{}', expected: ',', or identifier", token.text()));
                }
            }
        }
        self.take();
        Ok(values)
    }
}
