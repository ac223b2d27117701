/// Recognises sequential readers of one file, and says what to fetch before they ask.
///
/// Streams are told apart by position, not by open file, because fanotify events have none. A window opens at the second
/// sequential access and doubles whenever the reader gets into its second half.
struct ReadAhead: Sendable {
    private struct Stream {
        /// The granule behind the last access.
        var next: Int
        /// Fetched ahead up to here.
        var ahead: Int
        var window = 0
    }

    /// Readers of one file that are followed at once.
    private static let maxStreams = 8
    /// The first window, in granules.
    private static let firstWindow = 4
    /// Most recently used last.
    private var streams: [Stream] = []

    /// An access to `granules`; the range to fetch ahead, or nil.
    mutating func note(_ granules: Range<Int>, maxWindow: Int) -> Range<Int>? {
        guard
            let index = streams.firstIndex(where: { granules.contains($0.next - 1) || granules.lowerBound == $0.next })
        else {
            if streams.count == Self.maxStreams { streams.removeFirst() }
            streams.append(Stream(next: granules.upperBound, ahead: granules.upperBound))
            return nil
        }
        var stream = streams.remove(at: index)
        defer { streams.append(stream) }
        guard granules.upperBound > stream.next else { return nil }
        stream.next = granules.upperBound
        guard stream.next + stream.window / 2 >= stream.ahead else { return nil }
        stream.window = min(max(Self.firstWindow, stream.window * 2), maxWindow)
        let start = max(stream.ahead, stream.next)
        stream.ahead = max(stream.ahead, stream.next + stream.window)
        return start < stream.ahead ? start..<stream.ahead : nil
    }
}
