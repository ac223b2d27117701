/// A daemon's answer: one line of JSON.
package struct ControlReply: Codable, Sendable {
    /// Set if the request failed: one line for people.
    package var error: String?
    /// The answer to `status`.
    package var status: StatusReport?
    /// The progress of work on files.
    package var work: WorkReport?
    /// The answer to `state`.
    package var state: StateReport?

    package init(
        error: String? = nil, status: StatusReport? = nil, work: WorkReport? = nil, state: StateReport? = nil
    ) {
        self.error = error
        self.status = status
        self.work = work
        self.state = state
    }
}
