if(ROOM_TEST)
  target_link_libraries(${ROOM_TEST} PRIVATE GTest::gmock)
endif()
