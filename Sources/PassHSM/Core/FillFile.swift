import struct NIOConcurrencyHelpers.NIOLockedValueBox

/// Where the bytes of one file go: the lower file, and the record of what is present. Implemented by the store; called on
/// the engine's threads, by several fetches of the file at once, for disjoint granules.
package protocol FillDestination: AnyObject, Sendable {
    /// Writes whole granules (the last one cut off at the layout's limit) to the lower file. When it returns, reads see
    /// them; they become durable, and are recorded as present, soon after.
    ///
    /// - Parameter bytes: the content, valid during the call.
    /// - Throws: `.lowerFailed`; nothing of the granules is then recorded.
    func fill(_ granules: Range<Int>, with bytes: UnsafeRawBufferPointer) throws(FillError)

    /// Every byte of the file can be read from the lower file now. May be called more than once.
    func contentComplete()

    /// Whether the content as a whole is that of the recorded version, now that every byte of it is in the lower file: nil
    /// when it is, or holds local changes. Blocks. With an error nothing of the content is believed after a restart.
    func checkContent() -> FillError?

    /// A fetch of the file failed; to be remembered as the file's last error. Not called for cancelled fetches.
    func fillFailed(_ error: FillError)
}

/// The engine's side of one incomplete file. Both front ends hold it by their inode; it knows neither.
package final class FillFile: Sendable {
    /// The version of the remote object that this file's content belongs to.
    package let object: RemoteObject
    package let destination: any FillDestination
    /// A leaf lock: while it is held nothing is called, and no other lock is taken.
    let state: NIOLockedValueBox<FillState>
    let progress: FillProgress
    /// As it was at first: for questions that need not know where the file was cut off since.
    private let firstLayout: GranuleLayout

    /// - Parameters:
    ///   - check: what waits until `destination` has checked the content.
    ///   - refusal: why nothing that is absent can be had.
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

    /// Every byte can be read from the lower file.
    package var isComplete: Bool { state.withLockedValue(\.isComplete) }
    /// Nothing is under way, and nobody waits.
    package var isIdle: Bool { state.withLockedValue(\.isIdle) }
    /// Whether every byte of `range` can be read from the lower file; unlike ``FillEngine/isResident(_:of:)`` this is no
    /// access.
    package func isPresent(_ range: Range<Int>) -> Bool { state.withLockedValue { $0.isPresent(range) } }
    /// Whether some granules of `range` can be read from the lower file now, and others cannot.
    package func isPartlyPresent(_ range: Range<Int>) -> Bool {
        state.withLockedValue { state in
            !state.isPresent(range) && state.present.firstRun(in: state.layout.granules(touching: range)) != nil
        }
    }
    /// Nothing that is absent will ever be present: the file is to be taken into use anew.
    package var isRefused: Bool { state.withLockedValue { $0.refusal != nil } }
    package var layout: GranuleLayout { state.withLockedValue(\.layout) }
    package var present: GranuleSet { state.withLockedValue(\.present) }
}
