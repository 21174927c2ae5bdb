//! Lists of names: the tags of a repository, and the repositories of a registry.
//!
//! What always holds: names come in the order of their bytes, `last` need not be one of them, and where a page
//! is not the end, `Link` leads to the next one.

use gantry_arn::RepositoryName;
use http::StatusCode;
use http::header::LINK;
use serde_json::{Value, json};

use super::Call;
use super::answers::{Answer, Refusal};
use crate::model::route::percent_encoded;
use crate::tables::RepositoryRow;

/// Both the default and the most names on a page, as at ECR.
const PAGE: usize = 1000;

impl Call<'_> {
    pub(super) fn list_tags(&self, name: &RepositoryName) -> Result<Answer, Refusal> {
        let state = &self.service.state;
        let snapshot = state.store.snapshot();
        let repository = state.repository(&snapshot, &self.place, name)?;
        let rows = state.tags(&snapshot, &self.place, &repository.id);
        let tags = rows.iter().map(|row| row.tag.as_str());
        self.page(
            tags,
            &format!("/v2/{name}/tags/list"),
            |page| json!({"name": name.as_str(), "tags": page}),
        )
    }

    pub(super) fn catalog(&self) -> Result<Answer, Refusal> {
        let snapshot = self.service.state.store.snapshot();
        let rows = snapshot.list::<RepositoryRow>(&self.place.account, &self.place.region);
        let names = rows.iter().map(|row| row.name.as_str());
        self.page(names, "/v2/_catalog", |page| json!({"repositories": page}))
    }

    /// The page of `names` that the request asks for. They must come in the order of their bytes.
    fn page<'a>(
        &self,
        names: impl Iterator<Item = &'a str>,
        path: &str,
        body: impl Fn(&[&str]) -> Value,
    ) -> Result<Answer, Refusal> {
        let asked = self.parameter("n").map(|n| {
            n.parse::<usize>().map_err(|_| {
                Refusal::new(
                    StatusCode::BAD_REQUEST,
                    "PAGINATION_NUMBER_INVALID",
                    "n is not a number",
                )
            })
        });
        let limit = asked.transpose()?.unwrap_or(PAGE).min(PAGE);
        let last = self.parameter("last").unwrap_or_default();
        let mut rest = names.filter(|name| *name > last.as_str()).peekable();
        let page: Vec<&str> = rest.by_ref().take(limit).collect();
        let mut answer = Answer::json(StatusCode::OK, body(&page).to_string());
        if let (Some(last), Some(_)) = (page.last(), rest.peek()) {
            let last = percent_encoded(last);
            let next = format!("<{path}?n={limit}&last={last}>; rel=\"next\"");
            answer = answer.header(LINK, next);
        }
        Ok(answer)
    }
}
