"""A narrated film of a walk: a script made from its numbers, drawn and spoken.

    prompt       what is wanted, said in words
    walks        walks of what is no single self-attention: a translation, a generation
    script       scenes, lines, numbers and times; plain data
    writing      the script of a walk
    staging      where everything stands and how it moves: marks, in pixels and seconds
    drawing      frames of marks (skia)
    voices       lines as sound (espeak-ng, piper), or silence
    sound        a sound track of even loudness
    encoding     frames and sound as MP4 or GIF (PyAV)
    subtitles    the lines as WebVTT, SubRip and a transcript
    verify       everything above, worked out again from the walk
    making       all of it, one after another

Drawing and speech render the script and know nothing of walks. What they need comes with the extra
`film` and loads only when a film is made.
"""
