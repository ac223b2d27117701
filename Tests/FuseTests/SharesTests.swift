import Glibc
import HSMFuseDoor
import HSMSystem
import Testing

@testable import HSMFuse

/// Descriptors that the daemon keeps for users.
@Suite struct SharesTests {
    /// A descriptor with this number or a higher one.
    private func descriptor(_ number: Int32) throws -> Descriptor {
        let root = try Descriptor.open("/", O_RDONLY)
        return Descriptor(owning: try check { fcntl(root.raw, F_DUPFD_CLOEXEC, number) })
    }

    @Test("The lowest quarter is not counted")
    func uncounted() throws {
        let shares = DescriptorShares(limit: 1024, privileged: [])
        #expect(shares.limit > 512 && shares.limit < 1024)
        let low = try descriptor(0)
        #expect(shares.isUncounted(low))
        #expect(try shares.take(low, for: 1) == nil)
    }

    @Test("A user gets as many as are left, and no more; what ends is free again")
    func counted() throws {
        let shares = DescriptorShares(limit: 1024, privileged: [])
        // Two are left from here on.
        let high = try descriptor(shares.limit - 2)
        let left = Int(shares.limit - high.raw)
        #expect(left <= 2)
        var own: [DescriptorShares.Share] = []
        for _ in 0..<left { own.append(try #require(try shares.take(high, for: 1))) }
        #expect(throws: Errno(rawValue: EMFILE)) { try shares.take(high, for: 1) }
        // Another user has none yet.
        let other = try #require(try shares.take(high, for: 2))
        own.removeLast()
        own.append(try #require(try shares.take(high, for: 1)))
        #expect(throws: Errno(rawValue: EMFILE)) { try shares.take(high, for: 1) }
        withExtendedLifetime((own, other)) {}
    }

    @Test("The privileged take what is left, but not the reserve")
    func privileged() throws {
        let shares = DescriptorShares(limit: 1024, privileged: [0])
        let high = try descriptor(shares.limit - 1)
        #expect(high.raw == shares.limit - 1, "another test has this number")
        let taken = try (0..<5).map { _ in try #require(try shares.take(high, for: 0)) }
        #expect(taken.count == 5)
        let reserve = try descriptor(shares.limit)
        #expect(throws: Errno(rawValue: EMFILE)) { try shares.take(reserve, for: 0) }
    }

    @Test("A caller whose user the kernel does not tell is looked up by its thread")
    func callers() {
        #expect(CallerUser(Caller(user: 17, group: 18, thread: getpid())).user == 17)
        #expect(CallerUser(Caller(user: .max, group: .max, thread: getpid())).user == geteuid())
        #expect(CallerUser(Caller(user: .max, group: .max, thread: 0)).user == .max)
    }

    @Test("Of a byte range nothing lies behind the largest offset")
    func ranges() {
        #expect(Range(at: 5, count: 10) == 5..<15)
        #expect(Range(at: .max - 3, count: 10) == Int.max - 3..<Int.max)
        #expect(Range(at: -5, count: -1) == 0..<0)
    }
}
