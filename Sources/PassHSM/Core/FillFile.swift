import struct NIOConcurrencyHelpers.NIOLockedValueBox

/// Where the content of one file goes: the lower file, and the record of which granules are present. The store
/// implements it. The engine calls it on its own threads, for several fetches of a file at once, whose granules are
/// disjoint.
package protocol FillDestination: AnyObject, Sendable {
    /// Writes whole granules to the lower file; the last granule ends at the layout's limit. When the call returns,
    /// reads see the bytes. They become durable, and recorded as present, soon after.
    ///
    /// - Parameter bytes: the content, valid during the call.
    /// - Throws: `.lowerFailed`; then none of the granules is recorded.
    func fill(_ granules: Range<Int>, with bytes: UnsafeRawBufferPointer) throws(FillError)

    /// Notes that the lower file holds every byte of the file. May be called more than once.
    func contentComplete()

    /// Compares the whole content with the digest of the recorded version, once all of it is in the lower file. Nil
    /// when it matches, or when the file holds local changes. Blocks.
    ///
    /// After an error, none of the content counts as present after a restart.
    func checkContent() -> FillError?

    /// Stores `error` as the file's last error. Not called for cancelled fetches.
    func fillFailed(_ error: FillError)
}

/// The engine's state of one incomplete file. Both front ends hold it in their inode; it knows neither of them.
package final class FillFile: Sendable {
    /// The version of the remote object that this file's content belongs to.
    package let object: RemoteObject
    package let destination: any FillDestination
    /// A leaf lock: while it is held nothing is called, and no other lock is taken.
    let state: NIOLockedValueBox<FillState>
    let progress: FillProgress
    /// The layout at the start, for questions that do not depend on later truncation.
    private let firstLayout: GranuleLayout

    /// - Parameters:
    ///   - check: which granules are held back until `destination` has checked the content.
    ///   - refusal: the error for every absent granule; nil when absent granules can be fetched.
    package init(
        object: RemoteObject, destination: any FillDestination, layout: GranuleLayout, present: GranuleSet,
        check: FillState.Check = .none, refusal: FillError? = nil, engine: FillEngine
    ) {
        self.object = object
        self.destination = destination
        firstLayout = layout
        progress = FillProgress(granules: layout.count)
        let limits = engine.limits(granuleSize: layout.granuleSize)
        state = NIOLockedValueBox(
            FillState(
                layout: layout, present: present, limits: limits, check: check, refusal: refusal,
                nextID: engine.makeID))
    }

    /// The granules of `range`, without the lock.
    func granules(touching range: Range<Int>) -> Range<Int> { firstLayout.granules(touching: range) }

    /// Whether the lower file holds every byte.
    package var isComplete: Bool { state.withLockedValue(\.isComplete) }
    /// Whether no fetch is under way and nothing waits.
    package var isIdle: Bool { state.withLockedValue(\.isIdle) }
    /// Whether the lower file holds every byte of `range`. Unlike ``FillEngine/isResident(_:of:user:)`` this does not
    /// count as an access.
    package func isPresent(_ range: Range<Int>) -> Bool { state.withLockedValue { $0.isPresent(range) } }
    /// Whether the lower file holds some granules of `range` and lacks others.
    package func isPartlyPresent(_ range: Range<Int>) -> Bool {
        state.withLockedValue { state in
            !state.isPresent(range) && state.present.firstRun(in: state.layout.granules(touching: range)) != nil
        }
    }
    /// Whether absent granules will never become present. The front end then has to open the file anew.
    package var isRefused: Bool { state.withLockedValue { $0.refusal != nil } }
    package var layout: GranuleLayout { state.withLockedValue(\.layout) }
    package var present: GranuleSet { state.withLockedValue(\.present) }
}
