import CLinux
import HSMSystem
import Testing

@testable import HSMFanotify

@Suite struct EventTests {
    /// The kernel's bytes of one event.
    private func event(
        _ mask: UInt64, fd: Int32 = 7, pid: Int32 = 42, range: (UInt64, UInt64)? = nil, version: UInt8 = 3
    ) -> [UInt8] {
        var details: [UInt8] = []
        if let range {
            let record = passhsm_fan_range(
                info_type: 6, pad: 0, length: 24, reserved: 0, offset: range.0, count: range.1)
            withUnsafeBytes(of: record) { details = Array($0) }
        }
        let header = passhsm_fan_event(
            event_len: UInt32(24 + details.count), version: version, reserved: 0, metadata_len: 24, mask: mask, fd: fd,
            pid: pid)
        return withUnsafeBytes(of: header) { Array($0) } + details
    }

    private func parse(_ bytes: [UInt8]) -> EventBatch { bytes.withUnsafeBytes { EventBatch($0) } }

    @Test func `Opens and accesses are told apart, with their ranges and threads`() {
        let bytes =
            event(PASSHSM_FAN_OPEN_PERM) + event(PASSHSM_FAN_PRE_ACCESS, fd: 8, range: (4096, 8192))
            + event(2, fd: 9) + event(PASSHSM_FAN_Q_OVERFLOW, fd: -1)
        let batch = parse(bytes)
        #expect(!batch.isDamaged)
        #expect(
            batch.events == [
                Event(number: 7, kind: .open, wantsAnswer: true, thread: 42),
                Event(number: 8, kind: .access(4096..<12288), wantsAnswer: true, thread: 42),
                Event(number: 9, kind: .unknown, wantsAnswer: false, thread: 42),
                Event(number: -1, kind: .overflow, wantsAnswer: false, thread: 42),
            ])
    }

    @Test func `A range beyond the largest offset is cut off, and one that begins there is none`() {
        let last = UInt64(Int.max)
        #expect(parse(event(PASSHSM_FAN_PRE_ACCESS, range: (5, .max))).events.first?.kind == .access(5..<Int.max))
        #expect(parse(event(PASSHSM_FAN_PRE_ACCESS, range: (last, 9))).events.first?.kind == .access(Int.max..<Int.max))
        #expect(parse(event(PASSHSM_FAN_PRE_ACCESS, range: (last + 1, 9))).events.first?.kind == .unknown)
    }

    @Test func `An access without a range, and several kinds at once, are not understood and want an answer`() {
        for mask in [PASSHSM_FAN_PRE_ACCESS, PASSHSM_FAN_PRE_ACCESS | PASSHSM_FAN_OPEN_PERM] {
            let found = parse(event(mask)).events.first
            #expect(found == Event(number: 7, kind: .unknown, wantsAnswer: true, thread: 42))
        }
    }

    @Test func `What follows whole events and is none is told as damage`() {
        let one = event(PASSHSM_FAN_OPEN_PERM)
        for rest in [[1], Array(one.dropLast()), event(PASSHSM_FAN_OPEN_PERM, version: 4)] {
            let batch = parse(one + rest)
            #expect(batch.isDamaged && batch.events.count == 1)
        }
        #expect(parse([]).events.isEmpty && !parse([]).isDamaged)
    }

    @Test func `Random bytes, and events with random changes, are parsed within their bounds`() {
        var random = SystemRandomNumberGenerator()
        for _ in 0..<100_000 {
            var bytes: [UInt8]
            if Bool.random(using: &random) {
                bytes = (0..<Int.random(in: 0...200, using: &random)).map { _ in .random(in: 0...255, using: &random) }
            } else {
                bytes = event(PASSHSM_FAN_OPEN_PERM) + event(PASSHSM_FAN_PRE_ACCESS, range: (0, 4096))
                for _ in 0..<Int.random(in: 1...6, using: &random) {
                    bytes[Int.random(in: 0..<bytes.count, using: &random)] = .random(in: 0...255, using: &random)
                }
            }
            let batch = parse(bytes)
            // No event is shorter than its header, and none is seen twice.
            #expect(batch.events.count * 24 <= bytes.count)
            #expect(batch.isDamaged || batch.events.isEmpty == bytes.isEmpty)
        }
    }
}
