//! The calls of those who approve: tasks, and reviews of single attempts.

use crate::v1::{
    ApproveReviewRequest, ApproveReviewResponse, ApproveTaskRequest, ApproveTaskResponse, ApprovedTask,
    EndTaskRequest, EndTaskResponse, ExtendTaskRequest, ExtendTaskResponse, GetReviewRequest, GetTaskRequest,
    ListReviewsRequest, ListReviewsResponse, ListTasksRequest, ListTasksResponse, NarrowTaskRequest,
    NarrowTaskResponse, RejectReviewRequest, RejectReviewResponse, Review,
};
use crate::{Client, Error};

impl Client {
    /// Approves a task; the next decision knows it.
    ///
    /// # Errors
    /// The service refuses it, or the call failed.
    pub async fn approve_task(&mut self, task: ApproveTaskRequest) -> Result<ApproveTaskResponse, Error> {
        let request = self.timed(task);
        Ok(self.tasks.approve(request).await?.into_inner())
    }

    /// Takes actions, resources or time away from a task.
    ///
    /// # Errors
    /// The service refuses it, or the call failed.
    pub async fn narrow_task(&mut self, left: NarrowTaskRequest) -> Result<NarrowTaskResponse, Error> {
        let request = self.timed(left);
        Ok(self.tasks.narrow(request).await?.into_inner())
    }

    /// Moves the end of a task's window.
    ///
    /// # Errors
    /// The service refuses it, or the call failed.
    pub async fn extend_task(&mut self, end: ExtendTaskRequest) -> Result<ExtendTaskResponse, Error> {
        let request = self.timed(end);
        Ok(self.tasks.extend(request).await?.into_inner())
    }

    /// Ends a task for good.
    ///
    /// # Errors
    /// The call failed: the task may go on.
    pub async fn end_task(&mut self, end: EndTaskRequest) -> Result<EndTaskResponse, Error> {
        let request = self.timed(end);
        Ok(self.tasks.end(request).await?.into_inner())
    }

    /// Reads a task.
    ///
    /// # Errors
    /// The service does not know it, or the call failed.
    pub async fn task(&mut self, id: impl Into<String>) -> Result<ApprovedTask, Error> {
        let request = self.timed(GetTaskRequest { id: id.into() });
        let answer = self.tasks.get(request).await?.into_inner();
        answer.task.ok_or(Error::Incomplete("it holds no task"))
    }

    /// Reads a page of tasks.
    ///
    /// # Errors
    /// The call failed.
    pub async fn tasks(&mut self, page: ListTasksRequest) -> Result<ListTasksResponse, Error> {
        let request = self.timed(page);
        Ok(self.tasks.list(request).await?.into_inner())
    }

    /// Reads a review.
    ///
    /// # Errors
    /// The service does not know it, or the call failed.
    pub async fn review(&mut self, id: impl Into<String>) -> Result<Review, Error> {
        let request = self.timed(GetReviewRequest { id: id.into() });
        let answer = self.reviews.get(request).await?.into_inner();
        answer.review.ok_or(Error::Incomplete("it holds no review"))
    }

    /// Reads a page of reviews.
    ///
    /// # Errors
    /// The call failed.
    pub async fn reviews(&mut self, page: ListReviewsRequest) -> Result<ListReviewsResponse, Error> {
        let request = self.timed(page);
        Ok(self.reviews.list(request).await?.into_inner())
    }

    /// Approves a review; the next decision knows the grant.
    ///
    /// # Errors
    /// The service refuses it, or the call failed.
    pub async fn approve_review(
        &mut self,
        approval: ApproveReviewRequest,
    ) -> Result<ApproveReviewResponse, Error> {
        let request = self.timed(approval);
        Ok(self.reviews.approve(request).await?.into_inner())
    }

    /// Rejects a review, or takes its approval back.
    ///
    /// # Errors
    /// The service refuses it, or the call failed: a grant may go on.
    pub async fn reject_review(
        &mut self,
        rejection: RejectReviewRequest,
    ) -> Result<RejectReviewResponse, Error> {
        let request = self.timed(rejection);
        Ok(self.reviews.reject(request).await?.into_inner())
    }
}
