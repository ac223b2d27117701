/// Recognises sequential readers of one file, and tells what to fetch before they ask.
///
/// Streams are told apart by position and not by open file, because fanotify events do not tell the open file. A window
/// opens at the second sequential access, and doubles whenever the reader gets into its second half.
struct ReadAhead: Sendable {
    private struct Stream {
        /// The granule after the last access.
        var next: Int
        /// The end of what was fetched ahead.
        var ahead: Int
        var window = 0
    }

    /// How many readers of one file are followed at once.
    private static let maxStreams = 8
    /// The first window, in granules.
    private static let firstWindow = 4
    /// In order of use, the most recent last.
    private var streams: [Stream] = []

    /// Notes an access to `granules`. Returns the range to fetch ahead, or nil.
    ///
    /// - Parameter maxWindow: the largest window, in granules.
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
