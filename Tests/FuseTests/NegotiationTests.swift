import CFuse
import Glibc
import HSMSystem
import Testing

@testable import HSMFuse
@testable import HSMFuseDoor

@Suite struct NegotiationTests {
    @Test("The reply to Linux 6.18's INIT is the one that the mount has always given")
    func known() throws {
        var wishes = Negotiation.Wishes()
        (wishes.stackDepth, wishes.mapsOwners) = (1, true)
        let out = Negotiation.reply(to: FuseFixture.offer, wishes)
        #expect(out.flags == 0x7050_2479)
        #expect(out.flags2 == 0x120)
        #expect(out.unused.0 == 1)
        #expect((out.major, out.minor) == (7, 38))
        #expect(out.max_readahead == 1 << 20 && out.max_write == 1 << 20 && out.max_pages == 256)
        #expect(out.max_background == .max && out.congestion_threshold == .max && out.time_gran == 1)
    }

    @Test("What the kernel does not offer is not taken, and nothing that was not wanted")
    func offered() throws {
        var old = FuseFixture.offer
        (old.minor, old.flags, old.flags2) = (31, UInt32(FUSE_ASYNC_READ | FUSE_WRITEBACK_CACHE), 0)
        let out = Negotiation.reply(to: old, Negotiation.Wishes())
        #expect(out.flags == UInt32(FUSE_ASYNC_READ) && out.flags2 == 0 && out.minor == 31)
        #expect(Negotiation.reply(to: FuseFixture.offer, Negotiation.Wishes()).flags2 == 0)
    }

    @Test("Symbolic links are cached where the mount is exclusive")
    func symbolicLinks() throws {
        try withFuse {
            $0.cache = .exclusive
        } _: { fuse throws in
            #expect(try fuse.initialize().flags & UInt32(FUSE_CACHE_SYMLINKS) != 0)
        }
        try withFuse { fuse throws in #expect(try fuse.initialize().flags & UInt32(FUSE_CACHE_SYMLINKS) == 0) }
    }

    @Test("A short INIT of an old kernel is taken, another protocol is refused")
    func forms() throws {
        try withFuse { fuse throws in
            let short = Array(bytes(of: FuseFixture.offer).prefix(16))
            let answer = try fuse.call(FUSE_INIT, 0, short)
            #expect(answer.code == 0 && answer.payload.count == 64)
            #expect(try answer.value(fuse_init_out.self).flags2 == 0)
            var other = FuseFixture.offer
            other.major = 8
            #expect(try fuse.call(FUSE_INIT, 0, bytes(of: other)).code == EPROTO)
        }
    }

    @Test("Passthrough is on where a file can be registered, and the reason is said where it cannot")
    func passthrough() throws {
        try withFuse { fuse throws in
            #expect(fuse.kernel.isConnected)
            let isOn = fuse.fileSystem.passthrough.withLock { $0.isOn }
            #expect(isOn)
            #expect(fuse.kernel.backing.isEmpty, "the trial is registered still")
        }
        try withFuse(passthrough: false) { fuse throws in
            let result = fuse.fileSystem.passthrough.withLock { $0 }
            #expect(!result.isOn && result.reason.contains("CAP_SYS_ADMIN"))
        }
    }
}
