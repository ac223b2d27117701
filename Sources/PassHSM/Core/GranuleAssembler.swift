/// Cuts a stream of bytes into runs of whole granules. Whole granules within a piece are passed on without a copy.
struct GranuleAssembler {
    private let layout: GranuleLayout
    private let end: Int
    /// Bytes asked for.
    private let size: Int
    /// The next granule to pass on.
    private var next: Int
    /// The first bytes of granule `next`, when a piece ended inside it.
    private var pending: [UInt8] = []
    /// Bytes received so far.
    private(set) var received = 0

    init(granules: Range<Int>, layout: GranuleLayout) {
        self.layout = layout
        next = granules.lowerBound
        end = granules.upperBound
        size = layout.bytes(of: granules).count
    }

    var isFinished: Bool { next == end && pending.isEmpty }

    /// Takes the next piece, and calls `emit` with each run of whole granules that it completes.
    ///
    /// - Throws: `.remoteFailed` when there are more bytes than were asked for; errors of `emit`.
    mutating func add(
        _ piece: UnsafeRawBufferPointer,
        emit: (Range<Int>, UnsafeRawBufferPointer) throws(FillError) -> Void
    ) throws(FillError) {
        received += piece.count
        // Before any byte of the piece is used: the content of a piece that runs past the end cannot be trusted.
        guard received <= size else {
            throw FillError(.io, .remoteFailed, "the remote sent more bytes than were asked for")
        }
        var rest = piece
        if !pending.isEmpty {
            let size = layout.bytes(of: next..<next + 1).count
            let taken = min(size - pending.count, rest.count)
            pending.append(contentsOf: rest[..<taken])
            rest = UnsafeRawBufferPointer(rebasing: rest[taken...])
            guard pending.count == size else { return }
            var failure: FillError?
            pending.withUnsafeBytes { bytes in
                do throws(FillError) { try emit(next..<next + 1, bytes) } catch { failure = error }
            }
            if let failure { throw failure }
            pending.removeAll(keepingCapacity: true)
            next += 1
        }
        // The longest run of whole granules in what is left.
        let start = layout.bytes(of: next..<end)
        let whole: Int
        if rest.count >= start.count {
            whole = end
        } else {
            whole = next + rest.count / layout.granuleSize
        }
        if whole > next {
            let size = layout.bytes(of: next..<whole).count
            try emit(next..<whole, UnsafeRawBufferPointer(rebasing: rest[..<size]))
            rest = UnsafeRawBufferPointer(rebasing: rest[size...])
            next = whole
        }
        guard !rest.isEmpty else { return }
        pending.append(contentsOf: rest)
    }
}
