//! Expressions from text: `or` of `and` of `not` of comparisons and parentheses.

use regex::RegexBuilder;

use super::lexer::{Expecting, Lexer, Token};
use super::{
    Comparison, Expression, Limit, LimitValue, Order, Pattern, QueryError, Subject, moment, version,
};

/// AWS's limit of an expression, in characters.
pub const EXPRESSION_LENGTH_MAX: usize = 2000;

/// How deep parentheses and negations may nest: far more than anybody writes, far less than a
/// thread's stack holds.
const DEPTH_MAX: usize = 64;

/// What a compiled pattern may take, so that none of a few bytes becomes one of many.
const PATTERN_BYTES_MAX: usize = 256 * 1024;

/// Reads an expression.
pub fn parse(text: &str) -> Result<Expression, QueryError> {
    if text.chars().count() > EXPRESSION_LENGTH_MAX {
        return Err(QueryError {
            reason: format!("it is longer than {EXPRESSION_LENGTH_MAX} characters"),
            at: EXPRESSION_LENGTH_MAX + 1,
        });
    }
    let mut parser = Parser {
        lexer: Lexer::new(text),
    };
    let expression = parser.any_of(0)?;
    match parser.lexer.next(Expecting::Anything)? {
        None => Ok(expression),
        Some(token) => Err(parser.unexpected(Some(token), "'and', 'or' or the end")),
    }
}

struct Parser<'a> {
    lexer: Lexer<'a>,
}

impl Parser<'_> {
    fn any_of(&mut self, depth: usize) -> Result<Expression, QueryError> {
        let mut left = self.all_of(depth)?;
        while self.takes("||", "or")? {
            left = Expression::Or(Box::new(left), Box::new(self.all_of(depth)?));
        }
        Ok(left)
    }

    fn all_of(&mut self, depth: usize) -> Result<Expression, QueryError> {
        let mut left = self.negation(depth)?;
        while self.takes("&&", "and")? {
            left = Expression::And(Box::new(left), Box::new(self.negation(depth)?));
        }
        Ok(left)
    }

    fn negation(&mut self, depth: usize) -> Result<Expression, QueryError> {
        if depth > DEPTH_MAX {
            return Err(self.error(format!("it is nested more than {DEPTH_MAX} deep")));
        }
        if self.takes("!", "not")? {
            return Ok(Expression::Not(Box::new(self.negation(depth + 1)?)));
        }
        if self.takes("(", "(")? {
            let inner = self.any_of(depth + 1)?;
            return match self.lexer.next(Expecting::Anything)? {
                Some(Token::Sign(")")) => Ok(inner),
                other => Err(self.unexpected(other, "')'")),
            };
        }
        self.comparison()
    }

    /// Takes the sign or the word if it comes next. Words are taken in any case.
    fn takes(&mut self, sign: &str, word: &str) -> Result<bool, QueryError> {
        let place = self.lexer.place();
        let taken = match self.lexer.next(Expecting::Anything)? {
            Some(Token::Sign(found)) => found == sign,
            Some(Token::Word(found)) => found.eq_ignore_ascii_case(word),
            _ => false,
        };
        if !taken {
            self.lexer.back_to(place);
        }
        Ok(taken)
    }

    fn comparison(&mut self) -> Result<Expression, QueryError> {
        let subject = match self.lexer.next(Expecting::Anything)? {
            Some(Token::Word(word)) => self.subject(&word)?,
            other => return Err(self.unexpected(other, "a subject such as attribute:NAME")),
        };
        let operator = self.operator()?;
        let comparison = match operator {
            Operator::Exists => Comparison::Exists,
            Operator::NotExists => Comparison::NotExists,
            Operator::Equals => Comparison::Equals(self.argument()?),
            Operator::NotEquals => Comparison::NotEquals(self.argument()?),
            Operator::Order(order) => {
                let text = self.argument()?;
                Comparison::Order(order, self.limit(&subject, text)?)
            }
            Operator::In => Comparison::In(self.list()?),
            Operator::NotIn => Comparison::NotIn(self.list()?),
            Operator::Matches => Comparison::Matches(self.pattern()?),
            Operator::NotMatches => Comparison::NotMatches(self.pattern()?),
        };
        Ok(Expression::Comparison(subject, comparison))
    }

    fn subject(&self, word: &str) -> Result<Subject, QueryError> {
        if let Some(name) = word.strip_prefix("attribute:") {
            if name.is_empty() {
                return Err(self.error("the name of an attribute is missing".to_owned()));
            }
            return Ok(Subject::Attribute(name.to_owned()));
        }
        match word {
            "agentConnected" => Ok(Subject::AgentConnected),
            "agentVersion" => Ok(Subject::AgentVersion),
            "ec2InstanceId" => Ok(Subject::Ec2InstanceId),
            "registeredAt" => Ok(Subject::RegisteredAt),
            "runningTasksCount" => Ok(Subject::RunningTasksCount),
            "task:group" => Ok(Subject::TaskGroup),
            other => Err(self.error(format!(
                "unknown subject '{other}', expected agentConnected, agentVersion, attribute:NAME, ec2InstanceId, registeredAt, runningTasksCount or task:group"
            ))),
        }
    }

    fn operator(&mut self) -> Result<Operator, QueryError> {
        let found = self.lexer.next(Expecting::Anything)?;
        let negated = found == Some(Token::Sign("!"));
        let word = match &found {
            Some(Token::Sign("!")) => self.lexer.next(Expecting::Anything)?,
            other => other.clone(),
        };
        let operator = match &word {
            Some(Token::Sign(sign)) => Operator::of_sign(sign),
            Some(Token::Word(word)) => Operator::of_word(&word.to_ascii_lowercase()),
            _ => None,
        };
        let operator = match (negated, operator) {
            (false, operator) => operator,
            // Only these two are written with the sign before the word.
            (true, Some(Operator::Exists)) => Some(Operator::NotExists),
            (true, Some(Operator::In)) => Some(Operator::NotIn),
            (true, _) => None,
        };
        operator.ok_or_else(|| self.unexpected(word, "an operator such as == or exists"))
    }

    fn argument(&mut self) -> Result<String, QueryError> {
        match self.lexer.next(Expecting::Argument)? {
            Some(Token::Word(text) | Token::Quoted(text)) => Ok(text),
            other => Err(self.unexpected(other, "an argument")),
        }
    }

    fn list(&mut self) -> Result<Vec<String>, QueryError> {
        match self.lexer.next(Expecting::Argument)? {
            Some(Token::Sign("[")) => {}
            other => return Err(self.unexpected(other, "a list in brackets")),
        }
        let mut items = vec![self.argument()?];
        loop {
            match self.lexer.next(Expecting::Argument)? {
                Some(Token::Sign(",")) => items.push(self.argument()?),
                Some(Token::Sign("]")) => return Ok(items),
                other => return Err(self.unexpected(other, "',' or ']'")),
            }
        }
    }

    fn pattern(&mut self) -> Result<Pattern, QueryError> {
        let text = self.argument()?;
        let regex = RegexBuilder::new(&format!("^(?:{text})$"))
            .size_limit(PATTERN_BYTES_MAX)
            .nest_limit(50)
            .build();
        match regex {
            Ok(regex) => Ok(Pattern { text, regex }),
            Err(regex::Error::CompiledTooBig(_)) => {
                Err(self.error(format!("the pattern '{text}' is too large")))
            }
            Err(_) => Err(self.error(format!(
                "the pattern '{text}' is not a regular expression that can be matched (look-around and back references cannot)"
            ))),
        }
    }

    fn limit(&self, subject: &Subject, text: String) -> Result<Limit, QueryError> {
        let value = match subject {
            Subject::RegisteredAt => moment::parse(&text).map(LimitValue::Moment).ok_or("a date"),
            Subject::AgentVersion => version(&text).map(LimitValue::Version).ok_or("a version"),
            Subject::RunningTasksCount => number(&text).ok_or("a number"),
            _ => Ok(number(&text).unwrap_or(LimitValue::Text)),
        };
        match value {
            Ok(value) => Ok(Limit { text, value }),
            Err(kind) => Err(self.error(format!("'{text}' is not {kind}"))),
        }
    }

    fn error(&self, reason: String) -> QueryError {
        QueryError {
            reason,
            at: self.lexer.position(),
        }
    }

    fn unexpected(&self, found: Option<Token>, expected: &str) -> QueryError {
        let found = match found {
            None => "the end".to_owned(),
            Some(Token::Sign(sign)) => format!("'{sign}'"),
            Some(Token::Word(text) | Token::Quoted(text)) => format!("'{text}'"),
        };
        self.error(format!("expected {expected}, found {found}"))
    }
}

fn number(text: &str) -> Option<LimitValue> {
    let number: f64 = text.parse().ok()?;
    number.is_finite().then_some(LimitValue::Number(number))
}

enum Operator {
    Equals,
    NotEquals,
    Order(Order),
    Exists,
    NotExists,
    In,
    NotIn,
    Matches,
    NotMatches,
}

impl Operator {
    fn of_sign(sign: &str) -> Option<Self> {
        Some(match sign {
            "==" => Self::Equals,
            "!=" => Self::NotEquals,
            ">" => Self::Order(Order::Greater),
            ">=" => Self::Order(Order::GreaterOrEqual),
            "<" => Self::Order(Order::Less),
            "<=" => Self::Order(Order::LessOrEqual),
            "=~" => Self::Matches,
            "!~" => Self::NotMatches,
            _ => return None,
        })
    }

    fn of_word(word: &str) -> Option<Self> {
        Some(match word {
            "equals" => Self::Equals,
            "not_equals" => Self::NotEquals,
            "greater_than" => Self::Order(Order::Greater),
            "greater_than_equal" => Self::Order(Order::GreaterOrEqual),
            "less_than" => Self::Order(Order::Less),
            "less_than_equal" => Self::Order(Order::LessOrEqual),
            "exists" => Self::Exists,
            "not_exists" => Self::NotExists,
            "in" => Self::In,
            "not_in" => Self::NotIn,
            "matches" => Self::Matches,
            "not_matches" => Self::NotMatches,
            _ => return None,
        })
    }
}
